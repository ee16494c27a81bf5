"""There and back: published to native to published gives every bit back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from slime_vlm.checkpoints import tensor_files as weight_files
from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.published.convert import convert
from slime_vlm.checkpoints.published.weight_names import native_names, published_names
from slime_vlm.errors import CheckpointError
from tests.conftest import tiny_model
from tests.tiny_checkpoints import save_native
from tests.tiny_published import published_weights, write_published


def bits(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    assert found
    return found


def expect_same_bits(first: Path, second: Path) -> None:
    ours, theirs = bits(first), bits(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor.view(torch.uint8), theirs[name].view(torch.uint8)), name


def test_every_file_comes_back(tmp_path: Path):
    source = write_published(tmp_path / "published", mm_projector_lr=None, image_grid_pinpoints=[[672, 672]])
    convert(source, tmp_path / "native")
    report = convert(tmp_path / "native", tmp_path / "again")
    assert report.layout == "published"
    expect_same_bits(source, tmp_path / "again")
    assert (source / "model.safetensors").read_bytes() == (tmp_path / "again" / "model.safetensors").read_bytes()
    names = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert names == {
        str(path.relative_to(tmp_path / "again")) for path in (tmp_path / "again").rglob("*") if path.is_file()
    }
    for name in names - {"config.json", "model.safetensors"}:
        assert (source / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    assert json.loads((source / "config.json").read_text()) == json.loads(
        (tmp_path / "again" / "config.json").read_text()
    )


def test_shards_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_published(tmp_path / "published")
    monkeypatch.setattr(weight_files, "SHARD_BYTES", 20_000)
    convert(source, tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "again")
    assert len(list((tmp_path / "native").glob("*.safetensors"))) > 2
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 2
    expect_same_bits(source, tmp_path / "again")


@pytest.mark.parametrize(
    "fields",
    [{"mm_projector_type": "mlp2x_gelu"}, {"mm_resampler_type": "identity"}, {"mm_resampler_type": "qformer"}],
    ids=lambda fields: next(iter(fields.values())),
)
def test_published_variants(tmp_path: Path, fields: dict[str, str]):
    weights = published_weights()
    if "mm_projector_type" in fields:
        prefix = "model.mm_projector."
        kept = {name: value for name, value in weights.items() if not name.startswith(prefix)}
        weights = kept | {
            name.replace("projection.", ""): value for name, value in weights.items() if "projection" in name
        }
    elif fields["mm_resampler_type"] == "identity":
        weights = {name: value for name, value in weights.items() if "sampler" not in name}
    else:
        generator = torch.Generator().manual_seed(1)
        prefix, dim = "model.sampler.selector.", weights["model.norm.weight"].shape[0]
        added = {f"ln_{norm}.{kind}": (dim,) for norm in ("q", "kv", "post") for kind in ("weight", "bias")}
        for attention in ("cross_attn", "self_attn"):
            added |= {f"{attention}.in_proj_weight": (3 * dim, dim), f"{attention}.in_proj_bias": (3 * dim,)}
            added |= {f"{attention}.out_proj.weight": (dim, dim), f"{attention}.out_proj.bias": (dim,)}
        added |= {"prob_proj.0.weight": (dim // 4, dim), "prob_proj.0.bias": (dim // 4,), "query": (1, dim)}
        added |= {"prob_proj.2.weight": (1, dim // 4), "prob_proj.2.bias": (1,)}
        weights |= {prefix + name: torch.randn(shape, generator=generator) for name, shape in added.items()}
    source = write_published(tmp_path / "published", weights, **fields)
    convert(source, tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "again")
    expect_same_bits(source, tmp_path / "again")


def test_names_invert_each_other():
    weights = [name for name in published_weights() if native_names(name)]
    assert len(weights) > 100
    native = [part for name in weights for part in native_names(name)]
    assert published_names(reversed(native), "gated") == {name: native_names(name) for name in reversed(weights)}
    with pytest.raises(CheckpointError, match=r"page_positions\.linear\.weight has no name in the published layout"):
        published_names(["model.page_positions.linear.weight"], "gated")


def test_a_model_trained_here_becomes_published(tmp_path: Path):
    """Without anything kept from a published folder: config, tokenizer and vision encoder are written anew."""
    model, _ = save_native(tmp_path / "native", query_attention_head_dim=128)
    report = convert(tmp_path / "native", tmp_path / "published")
    assert report.num_tensors < len(model.state_dict())
    published = bits(tmp_path / "published")
    assert {"model.mm_projector.w_noise", "model.mm_projector.mean", "model.mm_projector.std"} <= published.keys()
    again, _ = load(tmp_path / "published", device="cpu", dtype="float32")
    assert (tmp_path / "published" / "vision_tower" / "model.safetensors").is_file()
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "equal to those of vision_tower" in str(convert(tmp_path / "published", tmp_path / "third"))


def test_what_changed_since_is_written(tmp_path: Path):
    convert(write_published(tmp_path / "published"), tmp_path / "native")
    config = tmp_path / "native" / "config.json"
    config.write_text(config.read_text().replace('"selector_top_p": 0.95', '"selector_top_p": 0.5'))
    weights = load_file(tmp_path / "native" / "model.safetensors")
    weights["lm_head.weight"] += 1
    save_file(weights, tmp_path / "native" / "model.safetensors", {"format": "pt"})
    convert(tmp_path / "native", tmp_path / "again")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("published", "again"))
    assert after == before | {"mm_resampler_topp": 0.5}
    assert torch.equal(bits(tmp_path / "again")["lm_head.weight"], weights["lm_head.weight"])


def test_the_length_limit_is_written(tmp_path: Path):
    convert(write_published(tmp_path / "published"), tmp_path / "native")
    save_native(tmp_path / "own", query_attention_head_dim=128)
    for folder, limit in (("native", 2048), ("own", None)):
        convert(tmp_path / folder, tmp_path / f"{folder}-unlimited")
        text = json.loads((tmp_path / f"{folder}-unlimited" / "config.json").read_text())
        assert text.get("tokenizer_model_max_length") == limit
        config = tmp_path / folder / "config.json"
        config.write_text(config.read_text().replace('"max_sequence_length": null', '"max_sequence_length": 99'))
        convert(tmp_path / folder, tmp_path / f"{folder}-limited")
        text = json.loads((tmp_path / f"{folder}-limited" / "config.json").read_text())
        assert text["tokenizer_model_max_length"] == 99


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"page_positions": True}, "page_positions is True"),
        ({"projector_vocabulary": [8, 8]}, "projector_vocabulary"),
        ({"max_tiles": 12}, "max_tiles is 12, but the published layout only has 7"),
        ({"selector": "none"}, "compression without a selector"),
        ({"query_attention_head_dim": 8}, "query_attention_head_dim is 8"),
        ({"selector_text": "question"}, "a selector that uses the question alone"),
        ({"selector_noise": 0.0}, "selector_noise is 0.0, but the published layout only has 0.1"),
        ({"gate_noise": False}, "gate_noise is False"),
        ({"max_local_tokens": 9}, "max_local_tokens is 9"),
        ({"view_size": 112}, "view_size is 112, but the published layout only has 56"),
    ],
)
def test_models_that_published_code_does_not_have(tmp_path: Path, overrides: dict[str, object], message: str):
    save_native(tmp_path / "native", **({"query_attention_head_dim": 128} | overrides))
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "native", tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_native_names_of_a_model_come_back():
    native = list(tiny_model(selector="attention").state_dict())
    for published, parts in published_names(native, "gated").items():
        assert native_names(published) == parts
