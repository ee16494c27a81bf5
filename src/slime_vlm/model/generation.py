"""Generation over rows whose length changes when images are merged in.

`generate` counts in tokens of `input_ids`, the cache in tokens of the merged rows. The model's output carries the
merged mask and positions; this mixin hands them to the following steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.utils import ModelOutput

from slime_vlm.model.token_merging import image_rows

_IMAGE_INPUTS = ("pixel_values", "image_grids", "question_mask", "vision_tokens", "kept_local_tokens")


class SlimeGenerationMixin(GenerationMixin):
    """`generate` with images: any padding side, cached or not, beams and several answers per prompt."""

    def generate(
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, **kwargs: Any
    ) -> Any:
        """Generate as every transformers model does, but never the image placeholder, which is no text."""
        if self.config.image_token_id < self.config.text_config.vocab_size:
            given = kwargs.get("suppress_tokens") or (generation_config or self.generation_config).suppress_tokens or []
            kwargs["suppress_tokens"] = [*given, self.config.image_token_id]
        return super().generate(inputs, generation_config, **kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Give images to the first step only, or to every step when there is no cache.

        Images may come with a filled cache. In the next turn of a conversation `input_ids` are the new tokens alone,
        and `attention_mask` covers the cached ones as well. Otherwise the cache holds the beginning of the prompt,
        which the model cuts off itself: how many tokens of `input_ids` that are is known after merging only.
        """
        images = {name: kwargs.pop(name, None) for name in _IMAGE_INPUTS}
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        cache = kwargs.get("past_key_values")
        filled = cache is not None and cache.get_seq_length() > 0
        if filled and is_first_iteration and any(value is not None for value in images.values()):
            mask = kwargs.get("attention_mask")
            inputs.update(images, attention_mask=mask, padding_side="left")
            if kwargs.get("next_sequence_length") is not None:
                mask = torch.ones_like(input_ids) if mask is None else mask
                inputs.update(input_ids=input_ids, attention_mask=mask, position_ids=None)
        elif not filled and (is_first_iteration or not kwargs.get("use_cache", True)):
            inputs.update(images)
            # Merging needs the plain mask and counts positions itself. The next token follows the last column, so
            # rows that were padded on the right (or not at all, but keep unequal numbers of tokens) move over.
            inputs.update(attention_mask=kwargs.get("attention_mask"), position_ids=None, padding_side="left")
        return inputs

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        if outputs.get("attention_mask") is not None and model_kwargs.get("use_cache", True):
            model_kwargs["attention_mask"] = outputs["attention_mask"]
            model_kwargs["position_ids"] = outputs["position_ids"]
        elif outputs.get("vision_tokens") is not None:
            # Without a cache every step merges anew: neither encode again, nor let the selector see the answer.
            model_kwargs["vision_tokens"] = outputs["vision_tokens"]
            model_kwargs["kept_local_tokens"] = outputs.get("kept_local_tokens")
            model_kwargs.update(pixel_values=None, question_mask=None)
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, **kwargs)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        images = {name: model_kwargs.pop(name, None) for name in _IMAGE_INPUTS if name != "question_mask"}
        if expand_size > 1 and input_ids is not None:
            images = self._expand_images(expand_size, input_ids, images)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return input_ids, {**model_kwargs, **{name: value for name, value in images.items() if value is not None}}

    def _expand_images(self, expand_size: int, input_ids: Tensor, images: dict[str, Any]) -> dict[str, Any]:
        """Encode once, then repeat the images of every row as often as the row is repeated."""
        vision_tokens = images["vision_tokens"]
        if vision_tokens is None and images["pixel_values"] is not None:
            vision_tokens = self.model.encode_images(images["pixel_values"], images["image_grids"])
        if not vision_tokens:
            return images
        layout = self.config.token_layout
        counts = torch.tensor([layout.num_image_tokens(*t.grid) for t in vision_tokens], device=input_ids.device)
        rows = image_rows(input_ids == self.config.image_token_id, counts).tolist()
        order = [
            image
            for row in range(input_ids.shape[0])
            for _ in range(expand_size)
            for image, image_row in enumerate(rows)
            if image_row == row
        ]
        kept = images["kept_local_tokens"]
        return {
            "vision_tokens": [vision_tokens[image] for image in order],
            "kept_local_tokens": None if kept is None else [kept[image] for image in order],
        }
