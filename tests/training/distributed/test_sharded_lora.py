"""FSDP2 with low-rank adapters: two processes over a base in float32 are one, and one in bfloat16 runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from slime_vlm.training.run import train
from tests.training.launching import Launch, sharding
from tests.training.mini import losses, records_recipe, write_recipe


def lora_recipe(folder: Path, **stage: Any) -> Path:
    values = records_recipe(
        folder / "data",
        steps=3,
        batch_size=2,
        micro_batch_size=1,
        learning_rate=1e-3,
        # What is drawn at random differs between processes.
        config={"selector_noise": 0.0, "gate_noise": False},
        **stage,
    )
    return write_recipe(folder, values)


def launch(folder: Path, recipe: Path) -> Path:
    """Run the recipe on two processes; every parameter has to be in shards."""
    out, sharded = folder / "together", folder / "sharded.json"
    Launch(folder / "two", ["train", str(recipe), "--out", str(out)], environment=sharding(sharded)).finish()
    parameters = json.loads(sharded.read_text())
    assert any("lora_A" in name for name in parameters)
    assert all(parameters.values()), "Accelerate fell back to copies of the whole model"
    return out / "3"


def test_two_processes_are_one(tmp_path: Path) -> None:
    recipe = lora_recipe(tmp_path, lora={"rank": 4, "alpha": 8, "dropout": 0.0})
    torch.set_num_threads(1)
    train(recipe, tmp_path / "alone")
    curve = losses(tmp_path / "alone" / "3")
    assert sorted(curve) == [1, 2, 3]
    assert losses(launch(tmp_path, recipe)) == pytest.approx(curve, rel=1e-3)


def test_a_base_in_bfloat16(tmp_path: Path) -> None:
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, "base_weights": "bfloat16"}
    stage = launch(tmp_path, lora_recipe(tmp_path, lora=lora, bf16=True))
    curve = losses(stage)
    assert sorted(curve) == [1, 2, 3]
    assert all(map(math.isfinite, curve.values()))
    assert (stage / "model" / "model.safetensors").exists()
