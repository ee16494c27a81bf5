"""Answering several questions at once, each with its own images, and counting what that took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from slime_vlm.inference.answering import encode
from slime_vlm.media import Clip

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.model.outputs import VisionTokens
    from slime_vlm.processing.processing_slime import SlimeProcessor

# Rows at once without a GPU, where batches save little; and the most on one.
_ON_CPU = 4
_MOST = 32
# What else a row needs, in multiples of its keys and values: activations, views, the merged embeddings.
_ROOM = 4


@dataclass(frozen=True)
class Given:
    """What the model gave to one question.

    Attributes:
        text: the answer.
        tokens: numbers of tokens: `prompt` (text alone), `global`, `local` (before selection), `kept`, `new`.
        seconds: time of the batch divided by its rows.
    """

    text: str
    tokens: dict[str, int]
    seconds: float


class BatchAnswerer:
    """Answers batches, and halves the batch when the memory does not suffice.

    Args:
        model: the model.
        processor: its processor.
        batch_size: rows at once; None takes what `automatic_batch_size` finds.
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
    ) -> list[Given]:
        """Answer prompts of any number, at most `batch_size` together; greedily, unless told otherwise.

        Args:
            prompts: texts after the images.
            images: images of each prompt, RGB, or frames of videos.
            max_new_tokens: longest answer.
            **sampling: what `generate` is told about choosing tokens, `do_sample=True, temperature=0.2`.

        Raises:
            torch.OutOfMemoryError: not even one row fits.
        """
        given: list[Given] = []
        while len(given) < len(prompts):
            rows = slice(len(given), len(given) + self._fits)
            try:
                given += self._together(prompts[rows], images[rows], max_new_tokens, sampling)
            except torch.OutOfMemoryError:
                if self._fits == 1:
                    raise
                self._fits = min(self._fits, len(prompts)) // 2 or 1
                torch.cuda.empty_cache()
        return given

    @torch.inference_mode()
    def _together(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Image.Image | Clip]],
        max_new_tokens: int,
        sampling: dict[str, Any],
    ) -> list[Given]:
        start = time.perf_counter()
        batch, tokens = self._encode(prompts, images)
        tokens, kept = self._look(batch, tokens)
        ids = batch["input_ids"]
        inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "attention_mask", "question_mask")}
        if tokens:
            inputs |= {"vision_tokens": tokens, "kept_local_tokens": kept}
        generated = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            **{"do_sample": False, "num_beams": 1, **sampling},
        )
        new = generated[:, ids.shape[1] :].cpu()
        seconds = (time.perf_counter() - start) / len(prompts)
        ends = self.model.generation_config.eos_token_id
        answers = [_up_to_end(row, ends) for row in new.tolist()]
        texts = self.processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
        prompt_lengths = ((ids != self.processor.image_token_id) & (batch["attention_mask"] != 0)).sum(1).tolist()
        given, first = [], 0
        for row, text in enumerate(texts):
            own = slice(first, first + len(images[row]))
            first = own.stop
            counts = {
                "prompt": prompt_lengths[row],
                "global": sum(0 if t.global_tokens is None else t.global_tokens.shape[0] for t in tokens[own]),
                "local": sum(t.num_local_tokens for t in tokens[own]),
                "kept": sum(int(mask.sum()) for mask in kept[own]),
                "new": len(answers[row]),
            }
            given.append(Given(text.strip(), counts, seconds))
        return given

    def _encode(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image | Clip]]
    ) -> tuple[dict[str, Tensor], list[VisionTokens]]:
        """The texts, and either the pixels of all images or, where a video is among them, tokens of each alone."""
        apart = any(isinstance(image, Clip) for row in images for image in row)
        seen = [encode(self.model, self.processor, image) for row in images for image in row] if apart else []
        grids = {"image_grids": [(one.grid.rows, one.grid.cols) for one in seen]} if apart else {}
        conversations = []
        for prompt, row_images in zip(prompts, images, strict=True):
            # In a question the placeholder would stand for one more image.
            text = prompt.replace(self.processor.image_token, "")
            content: list[dict[str, Any]] = [
                {"type": "image"} if apart else {"type": "image", "image": image} for image in row_images
            ]
            conversations.append([{"role": "user", "content": [*content, {"type": "text", "text": text}]}])
        batch = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding": True, "padding_side": "left", **grids},
        )
        inputs = {name: value.to(self.model.device) for name, value in batch.items()}
        return inputs, [one.tokens for one in seen]

    def _look(self, batch: dict[str, Tensor], tokens: list[VisionTokens]) -> tuple[list[VisionTokens], list[Tensor]]:
        """Tokens of every image, those that are given among them, and bool [L] which local ones are kept."""
        if "pixel_values" in batch:
            tokens = self.model.encode_images(batch["pixel_values"].to(self.model.dtype), batch["image_grids"])
        if not tokens:
            return [], []
        texts = {name: batch[name] for name in ("input_ids", "attention_mask", "question_mask")}
        selection = self.model.select(tokens, **texts)
        if selection is None:
            return tokens, [batch["input_ids"].new_ones(t.num_local_tokens, dtype=torch.bool) for t in tokens]
        return tokens, [mask[: t.num_local_tokens] for mask, t in zip(selection.kept, tokens, strict=True)]


def _up_to_end(ids: list[int], ends: int | Sequence[int] | None) -> list[int]:
    """New tokens up to the first that ends an answer, which counts; what follows in a batch is padding."""
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    return ids[: next((place + 1 for place, token in enumerate(ids) if token in stops), len(ids))]


def automatic_batch_size(model: SlimeForConditionalGeneration) -> int:
    """A power of two: 4 on a CPU; on a GPU as many rows as half of the free memory seems to hold, 32 at most."""
    if model.device.type != "cuda":
        return _ON_CPU
    config, layout = model.config, model.config.token_layout
    text = config.text_config
    tokens = layout.num_global_tokens + config.max_tiles * layout.num_tile_tokens + 512
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    row = 2 * text.num_hidden_layers * heads * width * tokens * model.dtype.itemsize * _ROOM
    free, _ = torch.cuda.mem_get_info(model.device)
    rows = max(1, min(_MOST, free // (2 * row)))
    return 1 << (rows.bit_length() - 1)
