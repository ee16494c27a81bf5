"""Measure how well the vision encoder of a page model reads, without the language model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from slime_vlm.pages import PageSettings, make_page
from slime_vlm.training.pages.data import PageShape, ReadCollator
from slime_vlm.training.pages.labels import page_vocabulary
from slime_vlm.training.pages.losses import slot_accuracy

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor


def read_pages(
    model: SlimeForConditionalGeneration,
    processor: SlimeProcessor,
    settings: PageSettings,
    count: int,
    first_seed: int,
) -> dict[str, float]:
    """Return the mean over pages of `slot_accuracy` on their local tokens.

    Args:
        model: The model.
        processor: The model's processor.
        settings: Settings of the pages.
        count: Number of pages.
        first_seed: Seed of the first page.

    Raises:
        ConfigError: The model has no vocabulary of rendered pages.
    """
    config, vocabulary = model.config, page_vocabulary(model.config.projector_vocabulary or [])
    shape = PageShape(config.view_size, config.max_tiles, math.isqrt(config.num_local_queries), config.feature_side)
    collate, slime = ReadCollator(processor, shape, vocabulary), model.model
    pages: list[dict[str, float]] = []
    for seed in range(first_seed, first_seed + count):
        batch = collate([make_page(seed, settings)])
        with torch.inference_mode():
            features = slime.encode_views(batch["pixel_values"][~batch["is_global"]].to(model.device))
            projector: Any = slime.projector
            compressor: Any = slime.local_compressor
            logits = projector.slot_logits(compressor(features))
        pages.append(slot_accuracy([logit.cpu() for logit in logits], batch["local_labels"]))
    return {name: sum(page[name] for page in pages) / count for name in pages[0]}
