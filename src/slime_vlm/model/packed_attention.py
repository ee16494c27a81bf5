"""Attention in a row of several samples that lie end to end. Each sample attends to itself alone.

transformers would mask the pairs of different samples and still compute them. They are most of the pairs of a long row.
Here the row is split, so that a sample costs no more than by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED_ATTENTION = "slime_packed"
"""Name of this attention in transformers: fused attention that knows packed rows."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' fused attention does, within each sample of a packed row.

    Args:
        module: The attention layer.
        query: [1, heads, N, d], or [B, heads, S, d] for rows that are not packed.
        key: [1, key heads, N, d].
        value: [1, key heads, N, d].
        attention_mask: For rows that are not packed.
        packed_lengths: Number of tokens of every sample, N in total. None for rows that are not packed.
        **kwargs: Scale, dropout and other arguments that transformers passes.

    Returns:
        [1, N, heads, d].
    """
    if packed_lengths is None:
        outputs, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return outputs, None
    samples = zip(*(part.split(list(packed_lengths), dim=2) for part in (query, key, value)), strict=True)
    attended = [sdpa_attention_forward(module, *sample, None, **kwargs)[0] for sample in samples]
    return torch.cat(attended, dim=1), None


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """Build transformers' mask, but none for packed rows: it would cover all their pairs."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def use_packed_attention(language_model: PreTrainedModel) -> None:
    """Switch a language model with plain fused attention to attention within samples.

    Other models process packed rows as they are. Flash attention splits them by itself. Sliding windows, bounded scores
    and eager attention use transformers' mask of pairs, which gives the same result at a higher cost.
    """
    config: Any = language_model.config
    windowed = set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    windowed = windowed or getattr(config, "sliding_window", None) is not None
    if config._attn_implementation == "sdpa" and not windowed and language_model._supports_attention_backend:
        language_model.set_attn_implementation(PACKED_ATTENTION)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, _mask)
