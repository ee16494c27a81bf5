"""Images and their questions as inputs of vLLM.

An item is an image with the text that the selector compares with and the budget of local tokens. Text and budget are
arguments of the processor, which are part of vLLM's key of an item: what it caches of an image (pixels, tokens after
selection, keys and values) serves the same question with the same budget only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems
from vllm.multimodal.processing import BaseMultiModalProcessor, BaseProcessingInfo, PromptReplacement, PromptUpdate
from vllm.multimodal.processing.dummy_inputs import BaseDummyInputsBuilder
from vllm.multimodal.processing.inputs import ProcessorInputs

from slime_vlm.engines.vllm.limits import budget_of_request
from slime_vlm.engines.vllm.renderer import QUESTION
from slime_vlm.errors import InputError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.processing.processing_slime import SlimeProcessor

BUDGET = "max_local_tokens"
"""The argument in `mm_processor_kwargs` of a request."""

_TEXT = "selector_text"


class SlimeProcessingInfo(BaseProcessingInfo):
    """Numbers of images and tokens."""

    def get_hf_config(self) -> SlimeConfig:
        """Return the config, with the changes of `--hf-overrides`."""
        return self.ctx.get_hf_config(SlimeConfig)

    def get_hf_processor(self, **kwargs: object) -> SlimeProcessor:
        """Return the processor, which follows the config."""
        return self.ctx.get_hf_processor(SlimeProcessor).follow(self.get_hf_config())

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Return that any number of images may be in a prompt."""
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Return the number of tokens of the largest image after selection."""
        config = self.get_hf_config()
        return {"image": config.token_layout.num_kept_tokens(1, config.max_tiles, config.max_local_tokens)}


class SlimeDummyInputsBuilder(BaseDummyInputsBuilder[SlimeProcessingInfo]):
    """Images and text by which vLLM measures memory."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """Return placeholders, and a word for the selector."""
        return self.info.get_hf_processor().image_token * mm_counts.get("image", 0) + "a"

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]) -> Any:
        """Return images of as many tiles as possible."""
        config = self.info.get_hf_config()
        side = config.view_size - 2 * config.tile_margin
        number = mm_counts.get("image", 0)
        return {"image": self._get_dummy_images(width=side * config.max_tiles, height=side, num_images=number)}


class SlimeMultiModalProcessor(BaseMultiModalProcessor[SlimeProcessingInfo]):
    """Cuts images into views, and gives each the text that its tokens are selected by."""

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> ProcessorInputs:
        """Return the dummy inputs. All of their text is the question."""
        inputs = super().get_dummy_inputs(*args, **kwargs)
        return replace(inputs, hf_processor_mm_kwargs={QUESTION: self._text_of(inputs.prompt)})

    def apply(self, inputs: ProcessorInputs, *args: Any, **kwargs: Any) -> Any:
        """Process the images of a prompt. vLLM hashes the arguments that are added here with each image.

        Raises:
            VLLMValidationError: Images and placeholders do not fit, or an argument is unknown or has a wrong value.
        """
        try:
            arguments = self._arguments(inputs)
        except InputError as error:
            raise VLLMValidationError(str(error)) from error
        return super().apply(replace(inputs, hf_processor_mm_kwargs=arguments), *args, **kwargs)

    def _arguments(self, inputs: ProcessorInputs) -> dict[str, object]:
        config = self.info.get_hf_config()
        given = dict(self.info.ctx.get_mm_config().merge_mm_processor_kwargs(inputs.hf_processor_mm_kwargs))
        question = given.pop(QUESTION, None)
        budget = budget_of_request(config, given.pop(BUDGET, None))
        if given:
            raise InputError(f"mm_processor_kwargs has {', '.join(map(str, given))}, expected {BUDGET} alone")
        images, placeholders = inputs.mm_data_items.get_count("image"), inputs.prompt.count(config.image_token_id)
        if images != placeholders:
            raise InputError(f"the prompt has {placeholders} image placeholder(s) for {images} image(s)")
        if config.selector_text == "question" and question is None:
            raise InputError(
                "the prompt came as token ids, expected text: this model's selector needs to know the question"
            )
        text = self._text_of(inputs.prompt) if question is None else question
        # Bytes: quick to hash.
        return {_TEXT: np.asarray(text, dtype=np.int64).tobytes(), BUDGET: budget or 0}

    def _text_of(self, prompt: Sequence[int]) -> list[int]:
        image_token = self.info.get_hf_config().image_token_id
        return [token for token in prompt if token != image_token]

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, Any]) -> BatchFeature:
        """Cut images into views. The text, the budget and a digest of the pixels go with each."""
        try:
            found = self.info.get_hf_processor().image_processor(images=list(hf_data["images"]), return_tensors="pt")
        except InputError as error:
            raise VLLMValidationError(str(error), parameter="image") from error
        grids = found["image_grids"]
        text = torch.from_numpy(np.frombuffer(hf_kwargs[_TEXT], dtype=np.int64).copy())
        views = found["pixel_values"].split((1 + grids.prod(dim=1)).tolist())
        return BatchFeature(
            {
                "pixel_values": found["pixel_values"].to(self.info.ctx.model_config.dtype),
                "image_grids": grids,
                "selector_text": text.expand(len(grids), -1),
                "budget": torch.full((len(grids),), int(hf_kwargs[BUDGET])),
                "digest": torch.stack([_digest(*part) for part in zip(views, grids.tolist(), strict=True)]),
            }
        )

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        grids = hf_inputs.get("image_grids", torch.empty(0, 2, dtype=torch.int64))
        return {
            "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", 1 + grids.prod(dim=1)),
            "image_grids": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            "selector_text": MultiModalFieldConfig.batched("image"),
            "budget": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            "digest": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, Any],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        """Replace each placeholder by as many as the image has tokens after selection."""
        config = self.info.get_hf_config()

        def placeholders(index: int) -> list[int]:
            rows, cols = out_mm_kwargs["image"][index]["image_grids"].data.tolist()
            budget = hf_processor_mm_kwargs[BUDGET] or None
            return [config.image_token_id] * config.token_layout.num_kept_tokens(rows, cols, budget)

        return [PromptReplacement(modality="image", target=[config.image_token_id], replacement=placeholders)]


def _digest(views: Tensor, grid: list[int]) -> Tensor:
    """Return the digest of the views [1 + T, 3, H, W] and the (rows, columns) of an image, uint8 [16]."""
    # With the grid: a blank image has the same views, whether its tiles stand side by side or one above the other.
    found = hashlib.blake2b(bytes(str(grid), "ascii"), digest_size=16)
    found.update(views.contiguous().numpy().data)
    return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)
