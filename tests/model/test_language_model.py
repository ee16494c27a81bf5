"""Bounded attention scores, whatever the version of transformers."""

from __future__ import annotations

import copy

import pytest
import torch

from slime_vlm.model.language_model import build_language_model
from tests.checkpoints.pretrained_parts.families import LANGUAGE_MODELS
from tests.conftest import tiny_model


def test_bounded_scores_are_bounded() -> None:
    config = copy.deepcopy(LANGUAGE_MODELS["gemma2"])
    # As transformers does for a model that is asked for by this name, before it builds the language model.
    config._attn_implementation_internal = None
    torch.manual_seed(0)
    model = build_language_model(config).eval()
    assert model.config._attn_implementation == "eager"
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_()
        bounded = model(ids).last_hidden_state
        for layer in model.layers:
            layer.self_attn.attn_logit_softcapping = None
        free = model(ids).last_hidden_state
    assert (bounded - free).abs().max() > 1e-3


def test_fused_attention_without_a_bound_is_refused() -> None:
    model = tiny_model(text_config=LANGUAGE_MODELS["gemma2"])
    assert model.model.language_model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="scaled_dot_product_attention"):
        model.set_attn_implementation("sdpa")
    assert tiny_model(text_config=LANGUAGE_MODELS["gemma"]).model.language_model.config._attn_implementation == "sdpa"
