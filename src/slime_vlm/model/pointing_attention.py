"""Attention whose last layer also tells where its heads look, for the copy output.

Fused attention has no weights. Only the last layer computes them here, all others stay fused. A prompt of S tokens
costs 4 * S * S bytes for every head of that layer while it runs; a step of decoding costs next to nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from slime_vlm.errors import ConfigError

POINTING_ATTENTION = "slime_pointing"
"""Name of this attention in transformers."""


def pointing_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    pointing: list[Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend, and in the last layer add the mean weights of the first half of the heads to a list.

    Args:
        module: The attention layer.
        query: [B, heads, n, d].
        key: [B, key heads, S, d].
        value: [B, key heads, S, d].
        attention_mask: [B, 1, n, S] to add to the scores, or None.
        scaling: Factor of the scores. None takes d ** -0.5.
        dropout: Share of the weights that training leaves out.
        pointing: Gets the weights [B, n, S]. A list of the caller's, so that threads do not meet.
        **kwargs: Other arguments that transformers passes.

    Returns:
        [B, n, heads, d], and all weights of the last layer [B, heads, n, S].
    """
    config: Any = module.config
    if pointing is None or module.layer_idx != config.num_hidden_layers - 1:
        attended, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
        return attended, None
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[2]]
    weights = scores.softmax(dim=-1, dtype=torch.float32)
    pointing.append(weights[:, : weights.shape[1] // 2].mean(dim=1))
    used = nn.functional.dropout(weights.to(query.dtype), p=dropout, training=module.training)
    return (used @ value).transpose(1, 2).contiguous(), weights


def use_pointing_attention(language_model: PreTrainedModel) -> None:
    """Switch a language model to this attention.

    Raises:
        ConfigError: It does not take its attention from transformers' table, or its layers do not see all tokens.
    """
    config: Any = language_model.config
    windowed = set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    windowed = windowed or getattr(config, "sliding_window", None) is not None
    if windowed or not language_model._supports_attention_backend or config.num_attention_heads < 2:
        raise ConfigError(
            f"copy_output is true for a language model of type '{config.model_type}', expected plain attention of two "
            "or more heads over all tokens in every layer, such as that of Llama"
        )
    language_model.set_attn_implementation(POINTING_ATTENTION)


AttentionInterface.register(POINTING_ATTENTION, pointing_attention)
AttentionMaskInterface.register(POINTING_ATTENTION, eager_mask)
