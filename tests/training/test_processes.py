"""Two processes learn together: what they learn is what one process learns from the same global batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .mini import losses, mini_recipe, write_recipe

ROOT = Path(__file__).parents[2]
TRAIN = "import torch; torch.set_num_threads(1); from slime_vlm.cli import main; main()"


def run(processes: int, recipe: Path, out: Path) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """Losses by step, and final weights, of a run on so many processes."""
    script = recipe.with_name("train.py")
    script.write_text(TRAIN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    subprocess.run(
        [*launch, str(script), "train", str(recipe), "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    return losses(out / "eye"), load_file(out / "eye" / "model" / "model.safetensors")


def test_two_processes_are_one(tmp_path: Path) -> None:
    recipe = mini_recipe()
    # No random numbers in it but those of the pages: what differs would be the exchange of gradients.
    stage = {**recipe["stages"][0], "batch_size": 2, "micro_batch_size": 1, "steps": 4, "bf16": False}
    recipe["stages"] = [stage]
    path = write_recipe(tmp_path / "recipe", recipe)
    (alone, weights), (together, others) = (run(count, path, tmp_path / str(count)) for count in (1, 2))
    assert sorted(alone) == [1, 2, 3, 4]
    assert together == pytest.approx(alone, rel=1e-4)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        # Running statistics are those of what the saving process has seen.
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(others[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    for count in (1, 2):
        done = json.loads((tmp_path / str(count) / "eye" / "model" / "stage.json").read_text())
        assert done["totals"]["samples"] == 8, "over all processes"
        assert done["environment"]["processes"] == count
