"""Every block against a plain version of its formula, an invariant, and an error."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, ConvNextConfig, Dinov2Config, SegformerConfig, SiglipVisionConfig

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model.global_adapters import GlobalAdapter, VisionProjector
from slime_vlm.model.local_compressor import LocalCompressor, stitch_tiles
from slime_vlm.model.page_positions import PagePositions
from slime_vlm.model.query_attention import QueryAttention, initial_position_table, sincos_positions
from slime_vlm.model.vision_encoder import build_vision_encoder, encode_views
from slime_vlm.model.visual_vocabulary import VisualVocabulary

VIT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
VIT |= {"image_size": 56, "patch_size": 14}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Query attention --------------------------------------------------------------------------------------------------


def plain_query_attention(module: QueryAttention, features: Tensor) -> Tensor:
    """The formula of the paper with loops over views and heads."""
    dim = features.shape[-1]
    head = dim // module.num_heads
    out = []
    for view in features:
        x = F.layer_norm(view, (dim,), module.norm_input.weight, module.norm_input.bias, 1e-6)
        q = F.layer_norm(module.query, (dim,), module.norm_query.weight, module.norm_query.bias, 1e-6)
        q = module.q_proj(q + module.position_table)
        k = module.k_proj(x + module.input_positions(len(x)))
        v = module.v_proj(x)
        heads = []
        for start in range(0, dim, head):
            part = slice(start, start + head)
            heads.append((q[:, part] @ k[:, part].T / math.sqrt(head)).softmax(-1) @ v[:, part])
        y = module.out_proj(torch.cat(heads, dim=-1))
        out.append(F.layer_norm(y, (dim,), module.norm_output.weight, module.norm_output.bias, 1e-6))
    return torch.stack(out)


def test_query_attention_is_the_formula() -> None:
    module = QueryAttention(num_queries=4, dim=16, num_heads=2)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(3, 16, 16)
    torch.testing.assert_close(module(features), plain_query_attention(module, features), atol=2e-5, rtol=1e-4)


def test_query_attention_does_not_mix_views() -> None:
    module = QueryAttention(num_queries=4, dim=16, num_heads=2)
    features = torch.randn(3, 16, 16)
    torch.testing.assert_close(module(features)[1:2], module(features[1:2]))


def test_positions_are_resized_only_between_grids() -> None:
    module = QueryAttention(num_queries=16, dim=8, num_heads=1)
    assert module.input_positions(16) is module.position_table
    assert module.input_positions(64).shape == (64, 8)


def test_position_table_by_hand() -> None:
    table = initial_position_table(4, 4)
    # One frequency: sin and cos of the column, then of the row; places (0,0), (0,1), (1,0), (1,1).
    one, zero = [math.sin(1.0), math.cos(1.0)], [0.0, 1.0]
    torch.testing.assert_close(table, torch.tensor([zero + zero, one + zero, zero + one, one + one]))


def test_query_attention_errors() -> None:
    with pytest.raises(ConfigError, match="square"):
        QueryAttention(num_queries=5, dim=8, num_heads=1)
    with pytest.raises(ConfigError, match="heads"):
        QueryAttention(num_queries=4, dim=8, num_heads=3)
    with pytest.raises(ConfigError, match="multiple of 4"):
        sincos_positions(torch.zeros(1), torch.zeros(1), 6)
    with pytest.raises(InputError, match="square"):
        QueryAttention(num_queries=4, dim=8, num_heads=1)(torch.randn(1, 7, 8))


# Global adapters --------------------------------------------------------------------------------------------------


def adapter() -> GlobalAdapter:
    return GlobalAdapter(num_tokens=16, vision_dim=8, num_heads=2).eval()


def test_new_gate_weighs_both_adapters_equally() -> None:
    module, project, features = adapter(), nn.Linear(8, 6), torch.randn(2, 16, 8)
    tokens, weights = module(features, project)
    assert weights is not None
    torch.testing.assert_close(weights, torch.full((2, 16, 2), 0.5))
    both = (project(features) + project(module.query_attention(features))) / 2
    torch.testing.assert_close(tokens, both)


def test_gate_by_hand() -> None:
    module = adapter()
    with torch.no_grad():
        module.gate_weight.zero_()[0, 0] = math.log(3.0)
    features = torch.zeros(1, 1, 8)
    features[..., 0] = 1.0
    torch.testing.assert_close(module.adapter_weights(features)[0, 0], torch.tensor([0.75, 0.25]) / (1 + 1e-6))


def test_gate_modes_are_the_ends_of_the_mixture() -> None:
    module, project, features = adapter(), nn.Linear(8, 6), torch.randn(2, 16, 8)
    mlp, no_weights = module(features, project, gate="mlp")
    attention, _ = module(features, project, gate="attention")
    assert no_weights is None
    torch.testing.assert_close(mlp, project(features))
    torch.testing.assert_close(attention, project(module.query_attention(features)))


def test_gate_noise_only_in_training_and_of_the_stated_spread() -> None:
    module, features = adapter(), torch.randn(1, 16, 8)
    nn.init.normal_(module.gate_weight)
    clean = module.adapter_weights(features)
    noise = torch.randn(1, 16, 2)
    assert torch.equal(module.adapter_weights(features, noise=noise), clean)
    module.train()
    logits = features @ module.gate_weight
    noisy = (logits + noise * (F.softplus(logits) + 0.01)).softmax(-1)
    torch.testing.assert_close(module.adapter_weights(features, noise=noise), noisy / (noisy.sum(-1, True) + 1e-6))
    torch.testing.assert_close(module.adapter_weights(features, gate_noise=False), clean)


def test_projector_is_linear_gelu_linear() -> None:
    module = VisionProjector(vision_dim=8, dim=6)
    x = torch.randn(3, 8)
    hidden = module.linear_1(x)
    exact = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(module(x), module.linear_2(exact))
    assert VisionProjector(vision_dim=8, dim=6, bias=False).linear_1.bias is None


# Visual vocabulary ------------------------------------------------------------------------------------------------


def test_vocabulary_of_certain_slots_is_a_look_up() -> None:
    module = VisualVocabulary(vision_dim=8, dim=6, slot_sizes=[3, 5, 2])
    ids = torch.tensor([[2, 4, 0], [0, 0, 1]])
    one_hot = [F.one_hot(ids[:, k], size).float() for k, size in enumerate((3, 5, 2))]
    torch.testing.assert_close(module.embed_ids(ids), module.embed_probs(one_hot))
    torch.testing.assert_close(module.embed_ids(ids)[0], module.table[2] + module.table[3 + 4] + module.table[8])


def test_vocabulary_forward_is_the_expected_embedding() -> None:
    module = VisualVocabulary(vision_dim=8, dim=6, slot_sizes=[3, 5])
    x = torch.randn(2, 4, 8)
    first, second = (logits.softmax(-1) for logits in module.slot_logits(x))
    assert (first.shape, second.shape) == ((2, 4, 3), (2, 4, 5))
    torch.testing.assert_close(module(x), first @ module.table[:3] + second @ module.table[3:])


def test_vocabulary_errors() -> None:
    with pytest.raises(ConfigError, match="one positive size"):
        VisualVocabulary(vision_dim=8, dim=6, slot_sizes=[3, 0])
    with pytest.raises(InputError, match="2 slots"):
        VisualVocabulary(vision_dim=8, dim=6, slot_sizes=[3, 5]).embed_ids(torch.zeros(4, 3, dtype=torch.long))


# Local tokens -----------------------------------------------------------------------------------------------------


def test_stitching_by_hand() -> None:
    # Two tiles side by side of 2 x 2 tokens each: row 0 is 0 1 | 4 5, row 1 is 2 3 | 6 7.
    tokens = torch.arange(8.0).reshape(2, 4, 1)
    assert stitch_tiles(tokens, 1, 2).flatten().tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert stitch_tiles(tokens, 2, 1).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert stitch_tiles(tokens, 1, 2, "flat").flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("rows", "cols", "side"), [(2, 3, 2), (3, 1, 4), (1, 7, 3)])
def test_stitching_is_the_plain_loop(rows: int, cols: int, side: int) -> None:
    tokens = torch.randn(rows * cols, side * side, 5)
    expected = [
        tokens[(y // side) * cols + x // side, (y % side) * side + x % side]
        for y in range(rows * side)
        for x in range(cols * side)
    ]
    assert torch.equal(stitch_tiles(tokens, rows, cols), torch.stack(expected))


def test_stitching_errors() -> None:
    with pytest.raises(InputError, match="2 x 2 tiles"):
        stitch_tiles(torch.zeros(3, 4, 1), 2, 2)


def test_compressor_gives_one_token_per_query() -> None:
    module = LocalCompressor(num_queries=4, dim=8, num_heads=1)
    assert module(torch.randn(5, 16, 8)).shape == (5, 4, 8)


@pytest.mark.parametrize("order", ["spatial", "flat"])
def test_page_positions_follow_the_tokens(order: str) -> None:
    module = PagePositions(dim=8)
    nn.init.eye_(module.linear.weight)
    side, rows, cols = 2, 2, 3
    # Tokens that carry their own page coordinates, stitched in the same order, tell where each position belongs.
    places = torch.tensor(
        [
            [[r * side + i, c * side + j] for i in range(side) for j in range(side)]
            for r in range(rows)
            for c in range(cols)
        ]
    )
    places = stitch_tiles(places, rows, cols, order)
    expected = sincos_positions(places[:, 0], places[:, 1], 8)
    torch.testing.assert_close(module(rows, cols, side, order), expected)


# Vision encoder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CLIPVisionConfig(**VIT), SiglipVisionConfig(**VIT), Dinov2Config(**VIT)])
@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_vision_transformers_give_the_chosen_hidden_state(config: CLIPVisionConfig, layer: int) -> None:
    encoder = build_vision_encoder(config).eval()
    views = torch.randn(3, 3, 56, 56)
    with torch.no_grad():
        hidden = encoder(pixel_values=views, output_hidden_states=True).hidden_states[layer]
        features = encode_views(encoder, views, layer=layer, num_tokens=16)
    torch.testing.assert_close(features, hidden[:, -16:])


def test_layers_behind_the_chosen_one_do_not_run() -> None:
    encoder = build_vision_encoder(CLIPVisionConfig(**VIT)).eval()
    calls: list[int] = []
    for index, layer in enumerate(encoder.encoder.layers):
        layer.register_forward_hook(lambda *_args, index=index: calls.append(index))
    encode_views(encoder, torch.randn(1, 3, 56, 56), layer=-2)
    assert calls == [0, 1]


@pytest.mark.parametrize(
    "config",
    [
        SegformerConfig(
            hidden_sizes=[8, 16],
            depths=[1, 1],
            num_encoder_blocks=2,
            sr_ratios=[2, 1],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
        ),
        ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    ],
)
def test_hierarchical_encoders_are_read_row_by_row(config: SegformerConfig) -> None:
    encoder = build_vision_encoder(config).eval()
    views = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = encoder(pixel_values=views, output_hidden_states=True).hidden_states[-1]
        features = encode_views(encoder, views, layer=-1, num_tokens=16)
    assert maps.shape == (2, 16, 4, 4)
    torch.testing.assert_close(features[:, 4 * 1 + 2], maps[:, :, 1, 2])


def test_chunks_change_nothing() -> None:
    encoder = build_vision_encoder(CLIPVisionConfig(**VIT)).eval()
    views = torch.randn(7, 3, 56, 56)
    with torch.no_grad():
        whole = encode_views(encoder, views, views_per_chunk=32)
        torch.testing.assert_close(encode_views(encoder, views, views_per_chunk=2), whole)


def test_frozen_encoder_builds_no_graph() -> None:
    encoder = build_vision_encoder(CLIPVisionConfig(**VIT))
    views = torch.randn(1, 3, 56, 56)
    assert encode_views(encoder, views).requires_grad
    assert not encode_views(encoder.requires_grad_(False), views).requires_grad


def test_vision_encoder_errors() -> None:
    encoder = build_vision_encoder(CLIPVisionConfig(**VIT))
    with pytest.raises(InputError, match="pixel_values"):
        encode_views(encoder, torch.zeros(0, 3, 56, 56))
    with pytest.raises(ConfigError, match="expected 25"):
        encode_views(encoder, torch.zeros(1, 3, 56, 56), num_tokens=25)
