"""A short run learns from its first step on, and says that it was short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from slime_vlm.checkpoints.tensor_files import folder_tensors
from slime_vlm.training.run import train
from slime_vlm.training.trainer import _warm_up_from_above_zero
from tests.training.mini import losses, records_recipe, write_recipe


def test_warm_up_by_hand() -> None:
    rates = [_warm_up_from_above_zero(lambda step: 1.0 - step / 10, 4, step) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 0.6, 0.5]


def test_a_run_of_one_step_changes_weights(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe: dict[str, Any] = records_recipe(tmp_path, steps=2)
    train(write_recipe(tmp_path, recipe), tmp_path / "two")
    assert "stage 3 has 2 step(s) and hardly changes the model" in capfd.readouterr().err
    rates = losses(tmp_path / "two" / "3", "train/learning_rate")
    assert min(rates.values()) > 0.0
    recipe = records_recipe(tmp_path, steps=1)
    for rate in (0.0, 1e-2):
        recipe["stages"][0]["learning_rate"] = rate
        train(write_recipe(tmp_path, recipe), tmp_path / str(rate))
    states = [
        {name: tensor.read() for name, tensor in folder_tensors(tmp_path / str(rate) / "3" / "model").items()}
        for rate in (0.0, 1e-2)
    ]
    changed = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert any("language_model" in name for name in changed)
    assert any("projector" in name for name in changed)
