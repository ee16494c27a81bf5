"""The language model of a SliME: any decoder of transformers."""

from __future__ import annotations

from typing import Any

from transformers import AutoModel, PretrainedConfig, PreTrainedModel


def build_language_model(config: PretrainedConfig) -> Any:
    """Build a language model without its head, and with an attention that computes what its config says."""
    model = AutoModel.from_config(config, trust_remote_code=False)
    keep_scores_bounded(model)
    return model


def keep_scores_bounded(model: PreTrainedModel) -> None:
    """Refuse fused attention for a model that bounds its attention scores, as Gemma 2 does.

    Fused attention (sdpa) has no bound for `attn_logit_softcapping`. transformers refuses it from 5.22 on, and earlier
    versions leave the bound out without a word.
    """
    if getattr(model.config, "attn_logit_softcapping", None) is None:
        return
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module._supports_sdpa = False
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")
