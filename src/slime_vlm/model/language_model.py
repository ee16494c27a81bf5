"""The language model of a SliME: any decoder of transformers."""

from __future__ import annotations

from typing import Any

from transformers import AutoModel, PretrainedConfig


def build_language_model(config: PretrainedConfig) -> Any:
    """Build a language model without its head, and with an attention that computes what its config says.

    Gemma 2 bounds its attention scores (`attn_logit_softcapping`). Fused attention (sdpa) has no bound. transformers
    refuses it from 5.22 on, and earlier versions leave the bound out without a word. Here it is refused by all.

    Args:
        config: Config of the language model.
    """
    model = AutoModel.from_config(config)
    if getattr(config, "attn_logit_softcapping", None) is not None:
        model._supports_sdpa = False
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation("eager")
    return model
