"""The first part of a prompt, processed once for all questions about an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from slime_vlm.model.cached_rows import CachedRows, attach_record
from slime_vlm.model.growing_cache import cache_after

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration


@dataclass(frozen=True)
class CachedPrefix:
    """The part of a prompt that does not depend on the question, with its keys and values. Nothing of it is changed.

    Attributes:
        input_ids: [1, P] the prompt up to the last token that does not depend on the question.
        layers: Keys and values [1, heads, P, width] of these tokens in every layer.
        record: The record of these tokens, see `cached_rows`.
    """

    input_ids: Tensor
    layers: list[tuple[Tensor, Tensor]]
    record: CachedRows | None

    def fits(self, input_ids: Tensor, model: SlimeForConditionalGeneration) -> bool:
        """Whether a prompt [1, S] starts with this prefix, and the model has the device and type of the cache."""
        first = self.layers[0][0]
        where = model.get_input_embeddings().weight
        same = input_ids.device == self.input_ids.device and (first.device, first.dtype) == (where.device, where.dtype)
        return same and torch.equal(input_ids[:, : self.input_ids.shape[1]], self.input_ids)

    def cache(self) -> DynamicCache:
        """Return a cache that holds the prefix, for one question."""
        cache = cache_after(self.layers)
        attach_record(cache, self.record)
        return cache
