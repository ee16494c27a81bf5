from __future__ import annotations

import torch

from slime_vlm.checkpoints.published.weight_names import is_unused, native_names, native_tensors
from tests.conftest import tiny_model


def test_names_by_hand() -> None:
    assert native_names("model.layers.3.mlp.up_proj.weight") == ["model.language_model.layers.3.mlp.up_proj.weight"]
    assert native_names("model.mm_projector.projection.2.bias") == ["model.projector.linear_2.bias"]
    assert native_names("model.mm_projector.2.bias") == ["model.projector.linear_2.bias"]
    resampler = ["model.global_adapter.query_attention.query"]
    assert native_names("model.mm_projector.attn.query") == native_names("model.mm_projector.query") == resampler
    assert native_names("model.sampler.post_qformer.pos_embed") == [
        "model.local_compressor.query_attention.position_table"
    ]


def test_fused_attention_is_split_in_order() -> None:
    fused = torch.arange(6.0)[:, None].repeat(1, 2)
    parts = dict(native_tensors("model.sampler.post_qformer.attn.in_proj_weight", fused))
    prefix = "model.local_compressor.query_attention."
    assert [parts[f"{prefix}{name}_proj.weight"][0, 0].item() for name in "qkv"] == [0, 2, 4]
    assert all(part.shape == (2, 2) for part in parts.values())


def test_unknown_and_unused_names() -> None:
    assert native_names("model.something.weight") == []
    assert not is_unused("model.something.weight")
    assert is_unused("model.mm_projector.w_noise")
    assert native_names("model.mm_projector.w_noise") == []


def test_every_native_weight_has_a_published_name() -> None:
    published = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "model.mm_projector.w_gate"]
    part = (
        "attn.in_proj_weight",
        "attn.in_proj_bias",
        "attn.out_proj.weight",
        "attn.out_proj.bias",
        "query",
        "pos_embed",
    )
    norms = tuple(f"ln_{norm}.{kind}" for norm in ("q", "kv", "post") for kind in ("weight", "bias"))
    published += [f"model.mm_projector.attn.{name}" for name in part + norms]
    published += [f"model.sampler.post_qformer.{name}" for name in part + norms]
    published += [f"model.mm_projector.projection.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    cross = tuple(name.replace("attn.", "cross_attn.") for name in part[:4])
    scorer = (*cross, *norms, "prob_proj.0.weight", "prob_proj.0.bias", "prob_proj.2.weight", "prob_proj.2.bias")
    published += [f"model.sampler.selector.{name}" for name in scorer]
    ours = {name for entry in published for name in native_names(entry)}
    state = set(tiny_model(selector="attention").state_dict())
    own = {name for name in state if not name.startswith(("model.vision_tower.", "model.language_model.layers."))}
    assert own == ours
