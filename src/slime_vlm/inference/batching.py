"""Answer several questions at once, each with its own images, and count the tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from slime_vlm.inference.answering import encode, up_to_end
from slime_vlm.media import Clip

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.model.outputs import VisionTokens
    from slime_vlm.processing.processing_slime import SlimeProcessor

# Rows of a batch without a GPU, where batches save little, and the maximum on one.
_CPU_ROWS = 4
_MAX_ROWS = 32
# Memory of a row in multiples of its keys and values: activations, views and merged embeddings come on top of them.
_MEMORY_FACTOR = 4


@dataclass(frozen=True)
class BatchAnswer:
    """An answer of a batch. Unlike `answer.Answer` it only counts tokens: its prompt may have any number of images.

    Attributes:
        text: The answer.
        tokens: Numbers of tokens: `prompt` (text alone), `global`, `local` (before selection), `kept`, `new`.
        seconds: Time of the batch divided by its rows.
    """

    text: str
    tokens: dict[str, int]
    seconds: float


class BatchAnswerer:
    """Answers questions in batches, and halves the batch when memory runs out.

    Args:
        model: The model.
        processor: Its processor.
        batch_size: Maximum number of rows of a batch. None takes `automatic_batch_size`.
    """

    def __init__(
        self, model: SlimeForConditionalGeneration, processor: SlimeProcessor, batch_size: int | None = None
    ) -> None:
        self.model, self.processor = model, processor
        self.batch_size = batch_size or automatic_batch_size(model)
        self._fits = self.batch_size

    def answer(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Image.Image | Clip]],
        max_new_tokens: int,
        **sampling: Any,
    ) -> list[BatchAnswer]:
        """Answer any number of prompts, at most `batch_size` at once, by default with greedy decoding.

        Args:
            prompts: Texts that follow the images.
            images: Images of each prompt, RGB, or frames of videos.
            max_new_tokens: Maximum number of tokens of an answer.
            **sampling: Arguments of `generate`, such as `do_sample=True, temperature=0.2`.

        Raises:
            torch.OutOfMemoryError: Even a single row does not fit.
        """
        answers: list[BatchAnswer] = []
        while len(answers) < len(prompts):
            rows = slice(len(answers), len(answers) + self._fits)
            try:
                answers += self._answer_batch(prompts[rows], images[rows], max_new_tokens, sampling)
            except torch.OutOfMemoryError:
                if self._fits == 1:
                    raise
                self._fits = min(self._fits, len(prompts)) // 2 or 1
                torch.cuda.empty_cache()
        return answers

    @torch.inference_mode()
    def _answer_batch(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Image.Image | Clip]],
        max_new_tokens: int,
        sampling: dict[str, Any],
    ) -> list[BatchAnswer]:
        start = time.perf_counter()
        batch, tokens = self._encode(prompts, images)
        tokens, kept = self._select(batch, tokens)
        ids = batch["input_ids"]
        inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "attention_mask", "question_mask")}
        if tokens:
            inputs |= {"vision_tokens": tokens, "kept_local_tokens": kept}
        generated = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            **{"do_sample": False, "num_beams": 1, **sampling},
        )
        new_ids = generated[:, ids.shape[1] :].cpu()
        seconds = (time.perf_counter() - start) / len(prompts)
        ends = self.model.generation_config.eos_token_id
        new = [up_to_end(row, ends) for row in new_ids.tolist()]
        texts = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        prompt_lengths = ((ids != self.processor.image_token_id) & (batch["attention_mask"] != 0)).sum(1).tolist()
        answers, first = [], 0
        for row, text in enumerate(texts):
            own = slice(first, first + len(images[row]))
            first = own.stop
            counts = {
                "prompt": prompt_lengths[row],
                "global": sum(0 if t.global_tokens is None else t.global_tokens.shape[0] for t in tokens[own]),
                "local": sum(t.num_local_tokens for t in tokens[own]),
                "kept": sum(int(mask.sum()) for mask in kept[own]),
                "new": len(new[row]),
            }
            answers.append(BatchAnswer(text.strip(), counts, seconds))
        return answers

    def _encode(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image | Clip]]
    ) -> tuple[dict[str, Tensor], list[VisionTokens]]:
        """Prepare the texts and the pixels of all images. With a video among them, encode every image instead."""
        has_clip = any(isinstance(image, Clip) for row in images for image in row)
        encoded = [encode(self.model, self.processor, image) for row in images for image in row] if has_clip else []
        grids = {"image_grids": [(image.grid.rows, image.grid.cols) for image in encoded]} if has_clip else {}
        conversations = []
        for prompt, row_images in zip(prompts, images, strict=True):
            # A placeholder in the text would stand for one more image.
            text = prompt.replace(self.processor.image_token, "")
            content: list[dict[str, Any]] = [
                {"type": "image"} if has_clip else {"type": "image", "image": image} for image in row_images
            ]
            conversations.append([{"role": "user", "content": [*content, {"type": "text", "text": text}]}])
        batch = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding": True, "padding_side": "left", "batch_layout": "views", **grids},
        )
        inputs = {name: value.to(self.model.device) for name, value in batch.items()}
        return inputs, [image.tokens for image in encoded]

    def _select(self, batch: dict[str, Tensor], tokens: list[VisionTokens]) -> tuple[list[VisionTokens], list[Tensor]]:
        """Return the tokens of every image, encoded here unless given, and the mask [L] of its kept local tokens."""
        if "pixel_values" in batch:
            tokens = self.model.encode_images(batch["pixel_values"].to(self.model.dtype), batch["image_grids"])
        if not tokens:
            return [], []
        texts = {name: batch[name] for name in ("input_ids", "attention_mask", "question_mask")}
        selection = self.model.select(tokens, **texts)
        if selection is None:
            return tokens, [batch["input_ids"].new_ones(t.num_local_tokens, dtype=torch.bool) for t in tokens]
        return tokens, [mask[: t.num_local_tokens] for mask, t in zip(selection.kept, tokens, strict=True)]


def automatic_batch_size(model: SlimeForConditionalGeneration) -> int:
    """Estimate a batch size, a power of two: 4 on a CPU; on a GPU what half of the free memory holds, 32 at most."""
    if model.device.type != "cuda":
        return _CPU_ROWS
    config, layout = model.config, model.config.token_layout
    text = config.text_config
    tokens = layout.num_global_tokens + config.max_tiles * layout.num_tile_tokens + 512
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    row = 2 * text.num_hidden_layers * heads * width * tokens * model.dtype.itemsize * _MEMORY_FACTOR
    free, _ = torch.cuda.mem_get_info(model.device)
    rows = max(1, min(_MAX_ROWS, free // (2 * row)))
    return 1 << (rows.bit_length() - 1)
