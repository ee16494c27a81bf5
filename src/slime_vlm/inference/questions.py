"""Questions about one image: what is refused, and the prompt that asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from slime_vlm.errors import InputError
from slime_vlm.model.tiling import TileGrid

if TYPE_CHECKING:
    from slime_vlm.processing.processing_slime import SlimeProcessor


def check_question(processor: SlimeProcessor, question: str) -> None:
    """Check a question.

    Raises:
        InputError: The question is empty or contains the image placeholder.
    """
    if not question.strip():
        raise InputError("the question is empty, expected some text")
    if processor.image_token in question.replace("\\" + processor.image_token, ""):
        raise InputError(
            f"the question contains {processor.image_token}, which stands for an image; leave it out, or write "
            f"\\{processor.image_token} for the word itself"
        )


def encode_question(processor: SlimeProcessor, question: str, grid: TileGrid) -> dict[str, Tensor]:
    """Return the input tensors [1, S] of a question about an image that is encoded already."""
    check_question(processor, question)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"image_grids": [(grid.rows, grid.cols)], "batch_layout": "views"},
    )
    return dict(prompt)
