from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from slime_vlm.checkpoints import tensor_files as weight_files
from slime_vlm.checkpoints.published.config import read_published
from slime_vlm.checkpoints.published.convert import convert, load_published
from slime_vlm.errors import CheckpointError
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.saved_folder import assert_auto_classes_find_it, card_of
from tests.tiny_published import published_weights, write_published


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_published(tmp_path / "published")


def expect_refusal(source: Path, target: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(source, target)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert not target.with_name(target.name + ".part").exists()


def test_converted_folder_loads_by_the_auto_classes(source: Path, tmp_path: Path):
    report = convert(source, tmp_path / "native")
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "native", output_loading_info=True)
    assert isinstance(model, SlimeForConditionalGeneration)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16
    assert report.num_parameters == sum(value.numel() for value in model.state_dict().values())
    assert "conversation style llama3" in str(report)
    processor = AutoProcessor.from_pretrained(tmp_path / "native")
    assert isinstance(processor, SlimeProcessor)
    assert processor.tokenizer.padding_side == "left"
    assert processor.image_processor.image_mean == (0.5, 0.5, 0.5)
    assert processor.image_token_id == model.config.image_token_id == len(processor.tokenizer) - 1
    assert model.generation_config.eos_token_id == [2, 5]
    assert_auto_classes_find_it(tmp_path / "native")
    assert card_of(tmp_path / "native")[0]["pipeline_tag"] == "image-text-to-text"
    # The authors' code knows none of this.
    convert(tmp_path / "native", tmp_path / "back")
    assert not list((tmp_path / "back").glob("*.py"))
    assert not [path for path in (tmp_path / "back").glob("*.json") if "auto_map" in path.read_text()]


def test_every_value_arrives(source: Path, tmp_path: Path):
    convert(source, tmp_path / "native")
    native, published = load_file(tmp_path / "native" / "model.safetensors"), published_weights()
    assert torch.equal(native["lm_head.weight"], published["lm_head.weight"])
    assert torch.equal(
        native["model.language_model.layers.1.mlp.up_proj.weight"], published["model.layers.1.mlp.up_proj.weight"]
    )
    fused = published["model.sampler.post_qformer.attn.in_proj_weight"]
    parts = [native[f"model.local_compressor.query_attention.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(torch.cat(parts), fused)
    assert torch.equal(
        native["model.global_adapter.query_attention.position_table"], published["model.mm_projector.attn.pos_embed"]
    )


def test_unused_tensors_are_the_listed_ones(source: Path, tmp_path: Path):
    report = convert(source, tmp_path / "native")
    assert sorted(report.unused) == [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.1.self_attn.rotary_emb.inv_freq",
        "model.mm_projector.mean",
        "model.mm_projector.std",
        "model.mm_projector.w_noise",
    ]


def test_config_is_taken_over(source: Path):
    config, processor = read_published(source)
    assert (config.separator_token_id, config.vision_feature_layer, config.gate) == (11, -2, "mixture")
    assert (config.num_local_queries, config.selector, config.selector_top_p) == (4, "cosine", 0.95)
    assert config.text_config.rope_parameters["rope_theta"] == 500000.0
    assert (config.view_size, config.patch_size) == (56, 14)
    assert config.vision_config.name_or_path == ""
    assert (processor.num_global_tokens, processor.num_tile_tokens, processor.num_separators) == (16, 4, 1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mm_learnable_gated": 0}, {"gate": "mlp"}),
        ({"mm_learnable_gated": 1}, {"gate": "attention"}),
        ({"use_global_only": True}, {"views": "global"}),
        ({"use_local_only": True}, {"views": "local"}),
        ({"mm_patch_merge_type": "flat"}, {"local_merge": "flat"}),
        ({"mm_resampler_type": "identity"}, {"local_compression": False, "selector": "none"}),
        (
            {"mm_resampler_type": "qformer", "mm_resampler_temp": 0.5},
            {"selector": "attention", "selector_temperature": 0.5},
        ),
        ({"mm_projector_type": "mlp2x_gelu"}, {"projector_type": "mlp"}),
    ],
)
def test_config_variants(tmp_path: Path, fields: dict[str, Any], expected: dict[str, Any]):
    config, _ = read_published(write_published(tmp_path / "published", **fields))
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear', expected one of 'gated'"),
        ({"mm_learnable_gated": 7}, "mm_learnable_gated 7, expected one of -1, 0, 1"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature 'cls_patch', expected one of 'patch'"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio"),
        ({"use_global_only": True, "use_local_only": True}, "one of them at most"),
        ({"model_type": "mistral"}, "model type 'mistral', expected the published layout"),
        ({"mm_vision_tower": "nobody/nothing"}, "neither a folder beside config.json nor on the hub"),
        ({"mm_vision_tower": "x" * 300}, "config 'x{80}' is neither a folder beside config.json nor on the hub"),
        ({"hidden_size": 48, "num_attention_heads": 6}, "expected .* by config.json"),
    ],
)
def test_config_that_cannot_be_converted(tmp_path: Path, fields: dict[str, Any], message: str, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    expect_refusal(write_published(tmp_path / "published", **fields), tmp_path / "native", message)


def test_missing_tensor(tmp_path: Path):
    weights = published_weights()
    del weights["model.norm.weight"]
    source = write_published(tmp_path / "published", weights)
    expect_refusal(source, tmp_path / "native", "lacks 1 tensor.* model.language_model.norm.weight")


def test_unknown_tensor(tmp_path: Path):
    weights = published_weights() | {"model.mm_projector.surprise": torch.zeros(3)}
    source = write_published(tmp_path / "published", weights)
    expect_refusal(source, tmp_path / "native", "1 tensor.* config.json does not have: model.mm_projector.surprise")


def test_tensor_of_another_shape(tmp_path: Path):
    weights = published_weights() | {"model.mm_projector.w_gate": torch.zeros(16, 3)}
    source = write_published(tmp_path / "published", weights)
    expect_refusal(source, tmp_path / "native", r"w_gate gives .* \[16, 3\], expected \[16, 2\]")


def test_truncated_weights(source: Path, tmp_path: Path):
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    expect_refusal(source, tmp_path / "native", "damaged or incomplete")


def test_truncated_bin(source: Path, tmp_path: Path):
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    file = source / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-1000])
    expect_refusal(source, tmp_path / "native", "damaged or incomplete")


def test_shards_and_pickles_give_the_same(source: Path, tmp_path: Path, monkeypatch):
    convert(source, tmp_path / "whole")
    weights = load_file(source / "model.safetensors")
    names = sorted(weights)
    (source / "model.safetensors").unlink()
    weight_map = {}
    for index, part in enumerate((names[::2], names[1::2])):
        file = f"pytorch_model-{index + 1:05d}-of-00002.bin"
        torch.save({name: weights[name] for name in part}, source / file)
        weight_map |= dict.fromkeys(part, file)
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    monkeypatch.setattr(weight_files, "SHARD_BYTES", 20_000)
    convert(source, tmp_path / "parts")
    files = sorted(path.name for path in (tmp_path / "parts").glob("*.safetensors"))
    assert len(files) > 1
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    whole = SlimeForConditionalGeneration.from_pretrained(tmp_path / "whole").state_dict()
    parts = SlimeForConditionalGeneration.from_pretrained(tmp_path / "parts").state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    (source / "pytorch_model-00002-of-00002.bin").unlink()
    expect_refusal(source, tmp_path / "third", "pytorch_model-00002-of-00002.bin, expected every shard")


def test_no_weights_no_config_no_json(source: Path, tmp_path: Path):
    (source / "model.safetensors").unlink()
    expect_refusal(source, tmp_path / "native", "has no weights")
    (source / "config.json").write_text("{")
    expect_refusal(source, tmp_path / "native", "cannot be read .* expected JSON")
    (source / "config.json").unlink()
    expect_refusal(source, tmp_path / "native", "has no config.json")


def test_target_that_is_in_use(source: Path, tmp_path: Path):
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        convert(source, tmp_path / "native")
    assert (tmp_path / "native" / "notes.txt").read_text() == "mine"


def test_dtype_casts(source: Path, tmp_path: Path):
    convert(source, tmp_path / "native", dtype=torch.float32)
    assert {value.dtype for value in load_file(tmp_path / "native" / "model.safetensors").values()} == {torch.float32}
    assert SlimeForConditionalGeneration.from_pretrained(tmp_path / "native").dtype == torch.float32


def test_in_memory_equals_on_disk(source: Path, tmp_path: Path):
    convert(source, tmp_path / "native")
    on_disk = SlimeForConditionalGeneration.from_pretrained(tmp_path / "native", dtype=torch.float32)
    in_memory, processor = load_published(source, dtype=torch.float32)
    ours, theirs = in_memory.state_dict(), on_disk.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert in_memory.generation_config.eos_token_id == on_disk.generation_config.eos_token_id
    assert processor.style is not None


def test_style_follows_the_vocabulary(source: Path, tmp_path: Path):
    assert read_published(source)[1].conversation_style == "llama3"
    text = (source / "tokenizer.json").read_text().replace("<|eot_id|>", "<|other|>")
    (source / "tokenizer.json").write_text(text)
    (source / "tokenizer_config.json").write_text(
        (source / "tokenizer_config.json").read_text().replace("<|eot_id|>", "<|other|>")
    )
    assert read_published(source)[1].conversation_style == "v1"


def test_released_vision_tower_needs_no_network(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = write_published(tmp_path / "published", mm_vision_tower="openai/clip-vit-large-patch14-336")
    config, _ = read_published(source)
    assert (config.vision_config.hidden_size, config.vision_config.num_hidden_layers, config.view_size) == (
        1024,
        24,
        336,
    )
    assert config.vision_config.hidden_act == "quick_gelu"


def test_overwritten_weights_are_seen(source: Path, tmp_path: Path):
    weights = load_file(source / "model.safetensors")
    weights["model.mm_projector.w_gate"] += 1
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    convert(source, tmp_path / "native")
    native = load_file(tmp_path / "native" / "model.safetensors")
    assert torch.equal(native["model.global_adapter.gate_weight"], weights["model.mm_projector.w_gate"])


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch, package: str):
    source = write_published(tmp_path / "published")
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CheckpointError, match=re.escape(f'{package}, which is not installed: pip install "slime-vlm[')):
        convert(source, tmp_path / "native")
