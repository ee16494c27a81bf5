"""LoRA weights, adapter files, hub ids, and whose vision weights are used."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.published.convert import convert
from slime_vlm.errors import CheckpointError
from tests.tiny_checkpoints import CLIP, low_rank, write_adapters, write_base, write_lora, write_tower
from tests.tiny_published import published_weights, write_published


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def cached(tmp_path: Path, name: str, folder: Path) -> Path:
    """Move a folder into the hub's cache, in its layout: links in a snapshot to files named by their hash."""
    place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    (place / "blobs").mkdir()
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob = place / "blobs" / f"hash{number}"
        shutil.move(path, blob)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(blob)
    shutil.rmtree(folder)
    return snapshot


def native(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def expect_published(folder: Path, names: list[str]) -> None:
    """Whether native tensors have the published values."""
    published, found = published_weights(), native(folder)
    for ours, theirs in zip(names[::2], names[1::2], strict=True):
        assert torch.equal(found[ours], published[theirs].to(found[ours].dtype)), ours


# LoRA --------------------------------------------------------------------------------------------------------------


def test_lora_by_hand(tmp_path: Path):
    lora = write_lora(tmp_path / "lora", base=write_base(tmp_path / "base"))
    report = convert(lora, tmp_path / "native")
    assert "vision weights: those of vision_tower, the checkpoint has none" in report.notes
    low, base = low_rank(), published_weights()
    found = native(tmp_path / "native")
    changed = "layers.1.mlp.down_proj"
    a, b = (low[f"base_model.model.model.{changed}.lora_{half}.weight"].float() for half in "AB")
    # alpha 4, rank 2
    expected = (base[f"model.{changed}.weight"].float() + 2.0 * b @ a).bfloat16()
    assert torch.equal(found[f"model.language_model.{changed}.weight"], expected)
    unchanged = ["model.language_model.norm.weight", "model.norm.weight", "lm_head.weight", "lm_head.weight"]
    trained = ["model.projector.linear_1.weight", "model.mm_projector.projection.0.weight"]
    tower = ["model.vision_tower.pre_layrnorm.bias", f"{CLIP}vision_model.pre_layrnorm.bias"]
    expect_published(tmp_path / "native", unchanged + trained + tower)
    assert load(tmp_path / "native")[0].generate(torch.tensor([[1, 30]]), max_new_tokens=1).shape == (1, 3)


def test_lora_as_peft_merges_it(tmp_path: Path):
    """Weights that peft itself wrote, and what peft makes of them."""
    base = write_base(tmp_path / "base", {name: value.float() for name, value in published_weights().items()})
    torch.manual_seed(0)
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "up_proj"], init_lora_weights=False, use_rslora=True
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    lora = write_lora(tmp_path / "lora", base)
    model.save_pretrained(lora)
    merged = model.merge_and_unload().state_dict()
    convert(lora, tmp_path / "native")
    found = native(tmp_path / "native")
    for name in ("layers.0.self_attn.q_proj", "layers.1.mlp.up_proj", "layers.1.mlp.down_proj"):
        difference = found[f"model.language_model.{name}.weight"] - merged[f"model.{name}.weight"]
        assert difference.abs().max() < 1e-6, name


def test_lora_as_a_pickle_on_a_given_base(tmp_path: Path):
    base = write_base(tmp_path / "vicuna-tiny")
    lora = write_lora(tmp_path / "lora", base="lmsys/vicuna-tiny")
    torch.save(load_file(lora / "adapter_model.safetensors"), lora / "adapter_model.bin")
    (lora / "adapter_model.safetensors").unlink()
    report = convert(lora, tmp_path / "native", base=base)
    assert not any(note.startswith("base:") for note in report.notes)
    shutil.copytree(base, tmp_path / "other")
    report = convert(lora, tmp_path / "second", base=tmp_path / "other")
    assert [note for note in report.notes if note.startswith("base:") and "lmsys/vicuna-tiny" in note]


def test_lora_loads_without_conversion(tmp_path: Path):
    lora = write_lora(tmp_path / "lora", base=write_base(tmp_path / "base"))
    model, _ = load(lora)
    convert(lora, tmp_path / "native")
    assert torch.equal(model.lm_head.weight, native(tmp_path / "native")["lm_head.weight"].float())


# Adapter files -----------------------------------------------------------------------------------------------------


def test_stages_one_after_the_other(tmp_path: Path):
    """1b leaves the projector, 2 the sampler; the second stands on the first."""
    base = write_base(tmp_path / "base")
    first = write_adapters(tmp_path / "stage1b", "mm_projector.bin", use_global_only=True, mm_learnable_gated=1)
    report = convert(first, tmp_path / "native1", base=base)
    assert any(note.startswith("not trained yet: local_compressor") for note in report.notes)
    assert load(tmp_path / "native1")[0].config.views == "global"
    second = write_adapters(tmp_path / "stage2", "sampler.bin", use_local_only=True)
    report = convert(second, tmp_path / "native2", base=tmp_path / "native1")
    assert not any(note.startswith("not trained") for note in report.notes)
    resampler = ["model.local_compressor.query_attention.query", "model.sampler.post_qformer.query"]
    projector = ["model.projector.linear_2.bias", "model.mm_projector.projection.2.bias"]
    attention = ["model.global_adapter.query_attention.query", "model.mm_projector.attn.query"]
    expect_published(tmp_path / "native2", resampler + projector + attention)


def test_both_files_under_one_name(tmp_path: Path):
    """Intermediate published checkpoints keep the compressor under the projector's file name."""
    folder = write_adapters(tmp_path / "stage2", "mm_projector.bin", "sampler.bin")
    tensors = {**torch.load(folder / "mm_projector.bin"), **torch.load(folder / "sampler.bin")}
    torch.save(tensors, folder / "mm_projector.bin")
    (folder / "sampler.bin").unlink()
    convert(folder, tmp_path / "native", base=write_base(tmp_path / "base"))
    expect_published(
        tmp_path / "native", ["model.local_compressor.query_attention.query", "model.sampler.post_qformer.query"]
    )


def test_first_values_of_what_is_not_trained_yet(tmp_path: Path):
    base = write_base(tmp_path / "base")
    folder = write_adapters(tmp_path / "stage1a", "mm_projector.bin", use_global_only=True, mm_learnable_gated=0)
    convert(folder, tmp_path / "native", base=base)
    found = native(tmp_path / "native")
    prefix = "model.local_compressor.query_attention."
    assert torch.equal(found[prefix + "norm_query.weight"], torch.ones(16))
    assert 0.01 < found[prefix + "query"].std() < 0.03
    assert torch.equal(found[prefix + "position_table"][0, 4:8], torch.ones(4))


def test_adapters_on_a_whole_checkpoint(tmp_path: Path):
    """The vision weights are then the base's."""
    weights = published_weights()
    weights["model.sampler.post_qformer.query"] = weights["model.sampler.post_qformer.query"] + 1
    weights[f"{CLIP}vision_model.pre_layrnorm.bias"] = weights[f"{CLIP}vision_model.pre_layrnorm.bias"] + 1
    base = write_published(tmp_path / "base", weights)
    convert(write_adapters(tmp_path / "stage2", "sampler.bin"), tmp_path / "native", base=base)
    expect_published(
        tmp_path / "native", ["model.local_compressor.query_attention.query", "model.sampler.post_qformer.query"]
    )
    found = native(tmp_path / "native")["model.vision_tower.pre_layrnorm.bias"]
    assert torch.equal(found, weights[f"{CLIP}vision_model.pre_layrnorm.bias"])


# Hub ids -----------------------------------------------------------------------------------------------------------


def test_hub_ids_of_checkpoint_base_and_tower(tmp_path: Path):
    cached(tmp_path, "tiny/slime", write_published(tmp_path / "published"))
    convert("tiny/slime", tmp_path / "native")
    cached(tmp_path, "tiny/vicuna", write_base(tmp_path / "base"))
    cached(tmp_path, "tiny/clip", write_tower(tmp_path / "clip"))
    lora = write_lora(tmp_path / "lora", base="tiny/vicuna")
    config = json.loads((lora / "config.json").read_text()) | {"mm_vision_tower": "tiny/clip"}
    (lora / "config.json").write_text(json.dumps(config))
    shutil.rmtree(lora / "vision_tower")
    report = convert(lora, tmp_path / "merged")
    assert report.notes == ("vision weights: those of tiny/clip, the checkpoint has none",)
    assert native(tmp_path / "merged").keys() == native(tmp_path / "native").keys()
    with pytest.raises(CheckpointError, match="nobody/nothing: neither a local folder nor on the hub"):
        convert("nobody/nothing", tmp_path / "third")


# Vision weights ----------------------------------------------------------------------------------------------------


def test_vision_weights_are_the_checkpoints(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    weights = published_weights()
    name = f"{CLIP}vision_model.post_layernorm.bias"
    source = write_published(tmp_path / "published", weights)
    (note,) = convert(source, tmp_path / "first").notes
    assert note == "vision weights: the checkpoint's; vision_tower is not on this machine to compare them with"
    write_tower(source / "vision_tower")
    (note,) = convert(source, tmp_path / "second").notes
    assert note == "vision weights: the checkpoint's, equal to those of vision_tower"

    save_file(weights | {name: weights[name] + 1}, source / "model.safetensors", {"format": "pt"})
    (note,) = convert(source, tmp_path / "third").notes
    assert note.startswith("vision weights: the checkpoint's, which differ from vision_tower in 1 of 55 tensors (by up")
    assert torch.equal(native(tmp_path / "third")["model.vision_tower.post_layernorm.bias"], weights[name] + 1)
    with caplog.at_level(logging.WARNING):
        load(source)
    assert "differ from vision_tower" in caplog.text


def test_a_whole_clip_as_tower(tmp_path: Path):
    source = write_published(tmp_path / "published")
    write_tower(source / "vision_tower")
    file = source / "vision_tower" / "model.safetensors"
    save_file({**load_file(file), "logit_scale": torch.ones(1)}, file, {"format": "pt"})
    (note,) = convert(source, tmp_path / "native").notes
    assert note.endswith("equal to those of vision_tower")
    file.write_bytes(file.read_bytes()[:50])
    (note,) = convert(source, tmp_path / "second").notes
    assert "not compared with vision_tower" in note
    assert "\n" not in note
