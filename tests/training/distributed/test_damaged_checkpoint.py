"""Two processes go on from the same checkpoint when the newest one is damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from slime_vlm.training.checkpoint_manifest import complete_checkpoints
from tests.training.launching import Launch, assert_same


def test_two_processes_set_aside_what_is_damaged(shared_recipe: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(alone.parent, out)
    assert list(complete_checkpoints(out / "3")) == [10, 11]
    (out / "3" / "checkpoint-11" / "optimizer.pt").unlink()
    weights = out / "3" / "model" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    said = Launch(tmp_path / "two", ["train", str(shared_recipe), "--out", str(out), "--resume"]).finish()
    assert said.count("stage 3: its model is damaged (model.safetensors has ") == 1
    damaged = "stage 3: checkpoint-11 is damaged (optimizer.pt is missing), set aside as damaged-checkpoint-11"
    assert said.count(damaged) == 1
    assert said.count("stage 3: resuming after step 10 of 12") == 1
    assert_same(out / "3", alone)
    assert (out / "3" / "damaged-model").is_dir()
    assert (out / "3" / "damaged-checkpoint-11").is_dir()
