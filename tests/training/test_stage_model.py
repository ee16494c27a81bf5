"""Stages that start together from several folders: weights in one file or in shards, or one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slime_vlm.errors import CheckpointError, ConfigError
from slime_vlm.training.models import stage_model, start_model
from slime_vlm.training.recipe import load_recipe
from tests.training.mini import mini_recipe, write_recipe


def write_stage(folder: Path, shard_size: str = "1GB") -> None:
    """The model after a stage that trained the language model; every weight is 2."""
    model, processor = start_model(load_recipe(write_recipe(folder, mini_recipe())), {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
    model.save_pretrained(folder, max_shard_size=shard_size)
    processor.save_pretrained(folder)
    (folder / "stage.json").write_text(json.dumps({"trained": ["model.language_model."]}))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    model, processor = start_model(load_recipe(write_recipe(folder, mini_recipe())), {})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    write_stage(folder, "20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert not (folder / "model.safetensors").exists()
    return folder


def test_one_file_and_shards_are_the_same(first: Path, sharded: Path, tmp_path: Path) -> None:
    write_stage(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    models = [stage_model([first, folder], {})[0].state_dict() for folder in (tmp_path, sharded)]
    alone = stage_model([first], {})[0].state_dict()
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name])
        # The head is the embeddings.
        if name.startswith(("model.language_model.", "lm_head.")):
            assert bool((value == 2.0).all()), name
        else:
            assert torch.equal(value, alone[name]), name


def test_a_shard_that_is_gone(first: Path, sharded: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sharded, tmp_path / "copy")
    sorted(folder.glob("model-*.safetensors"))[0].unlink()
    with pytest.raises(CheckpointError, match=r"index.json names model-00001-of-\d+.safetensors, expected every shard"):
        stage_model([first, folder], {})
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"copy has no weights, expected model.safetensors or pytorch_model.bin"):
        stage_model([first, folder], {})


def test_what_does_not_fit(first: Path, tmp_path: Path) -> None:
    write_stage(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.language_model.norm.weight"
    save_file({**weights, name: torch.zeros(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"norm.weight has the shape \[3\], but in .* it is \[32\]: stages that"):
        stage_model([first, tmp_path], {})
    weights["model.language_model.more"] = torch.zeros(3)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"more has the shape \[3\], but in .* it is absent"):
        stage_model([first, tmp_path], {})
