"""Parameters spread over two processes (FSDP2): what they learn, and what goes on from their checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from slime_vlm.errors import ConfigError
from slime_vlm.recipes import FOLDER as RECIPES
from slime_vlm.training.distributed.fsdp import is_sharded
from slime_vlm.training.run import train
from slime_vlm.training.trainer import SlimeTrainer
from tests.training.launching import Launch, assert_same, sharding


def test_shards_on_two_processes_and_then_on_one(shared_recipe: Path, alone: Path, tmp_path: Path) -> None:
    out, sharded = tmp_path / "run", tmp_path / "sharded.json"
    first = Launch(tmp_path / "first", ["train", str(shared_recipe), "--out", str(out)], environment=sharding(sharded))
    first.wait_for_step(out / "3", 2)
    first.kill_rank(1)
    assert not (out / "3" / "model").exists(), "the stage was over before the signal came"
    parameters = json.loads(sharded.read_text())
    assert len(parameters) > 50
    assert all(parameters.values()), "Accelerate fell back to copies of the whole model"
    torn = shutil.copytree(out, tmp_path / "torn")

    second = ["train", str(shared_recipe), "--out", str(out), "--resume"]
    Launch(tmp_path / "second", second, environment=sharding(sharded)).finish()
    assert_same(out / "3", alone)

    checkpoints = sorted((torn / "3").glob("checkpoint-*/complete"))
    assert checkpoints
    assert all(is_sharded(path.parent) for path in checkpoints)
    train(shared_recipe, torn, resume=True)
    assert_same(torn / "3", alone)


def test_whole_checkpoints_are_not_taken_for_shards(alone: Path) -> None:
    checkpoint = next(alone.glob("checkpoint-*"))
    assert not is_sharded(checkpoint)
    with pytest.raises(ConfigError, match="is not sharded: continue with --resume without FSDP"):
        SlimeTrainer._load_from_checkpoint(SimpleNamespace(is_fsdp_enabled=True), str(checkpoint))


@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_accelerate_reads_its_recipes(name: str) -> None:
    path = RECIPES / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.num_processes == 8
    known = {"fsdp2": config.fsdp_config, "zero3": config.deepspeed_config}[name]
    assert known == yaml.safe_load(path.read_text())[f"{'fsdp' if name == 'fsdp2' else 'deepspeed'}_config"]
