"""Attention in a row of several samples that lie end to end, each of which sees itself alone.

transformers would mask the pairs of different samples, which are most of a long row, and compute them all the same.
Here the row is taken apart, so that a sample costs what it costs alone.
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
"""Name of this attention in transformers: its fused attention, but for packed rows."""


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
        module: The layer.
        query: [1, heads, N, d]; [B, heads, S, d] for rows that are not packed.
        key: [1, key heads, N, d].
        value: [1, key heads, N, d].
        attention_mask: For rows that are not packed.
        packed_lengths: Tokens of every sample, N in sum; None for rows that are not packed.
        **kwargs: Scale, dropout and what else transformers hands over.

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
    """No mask for packed rows, which have none: of all their pairs it would be large."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def use_packed_attention(language_model: PreTrainedModel) -> None:
    """Have a language model attend within samples, where it attends by plain fused attention now.

    Others read packed rows as they are: flash attention takes them apart by itself, and windows, bounded scores and
    eager attention go by transformers' mask of pairs, which is as right and costs more.
    """
    config: Any = language_model.config
    windowed = set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    windowed = windowed or getattr(config, "sliding_window", None) is not None
    if config._attn_implementation == "sdpa" and not windowed and language_model._supports_attention_backend:
        language_model.set_attn_implementation(PACKED_ATTENTION)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, _mask)
