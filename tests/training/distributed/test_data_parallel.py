"""Two processes learn together: what they learn is what one process learns from the same global batches."""

from __future__ import annotations

import json
from pathlib import Path

from slime_vlm.training.run import train
from tests.training.launching import Launch, assert_same
from tests.training.mini import mini_recipe, write_recipe


def test_two_processes_are_one_with_an_objective(tmp_path: Path) -> None:
    recipe = mini_recipe()
    # No random numbers in it but those of the pages: what differs would be the exchange of gradients.
    stage = {**recipe["stages"][0], "batch_size": 2, "micro_batch_size": 1, "steps": 4, "bf16": False}
    recipe["stages"] = [stage]
    path = write_recipe(tmp_path / "recipe", recipe)
    train(path, tmp_path / "alone")
    Launch(tmp_path / "two", ["train", str(path), "--out", str(tmp_path / "together")]).finish()
    assert_same(tmp_path / "together" / "encoder", tmp_path / "alone" / "encoder")
    for name, count in (("alone", 1), ("together", 2)):
        done = json.loads((tmp_path / name / "encoder" / "model" / "stage.json").read_text())
        assert done["totals"]["samples"] == 8, "over all processes"
        assert done["environment"]["processes"] == count
