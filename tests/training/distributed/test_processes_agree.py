"""Two processes decide together: from which checkpoint to go on, and whether to go on at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from slime_vlm.training.checkpoint_manifest import complete_checkpoints
from slime_vlm.training.data_changes import DATA_FILE
from slime_vlm.training.run_lock import locked
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


def test_two_processes_end_when_one_refuses(shared_recipe: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(alone.parent, out)
    shutil.rmtree(out / "3" / "model")
    command = ["train", str(shared_recipe), "--out", str(out), "--resume"]
    # The first process refuses before it joins the other.
    with locked(out / "3.lock", pytest.fail):
        assert f"process {os.getpid()} on " in Launch(tmp_path / "locked", command).refuse()
    stored = json.loads((out / "3" / DATA_FILE).read_text())
    stored[0]["in_order"] = "0"
    (out / "3" / DATA_FILE).write_text(json.dumps(stored))
    assert "records.json has its records in another order" in Launch(tmp_path / "changed", command).refuse()
    assert list(complete_checkpoints(out / "3")) == [10, 11]
    said = Launch(tmp_path / "accepted", [*command, "--accept-data"]).finish()
    assert said.count("has its records in another order; continuing with them") == 1
    assert_same(out / "3", alone)
