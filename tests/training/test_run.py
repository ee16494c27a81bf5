"""What a person sees of a run, and what they are told when it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.training.run import train
from tests.training.mini import losses, mini_recipe, records_recipe, write_recipe


def short(stage: int = 0, **values: Any) -> dict[str, Any]:
    """One stage of two steps."""
    recipe = mini_recipe()
    recipe["stages"] = [{**recipe["stages"][stage], "steps": 2, "start": None, **values}]
    return recipe


def test_what_is_seen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = train(write_recipe(tmp_path, short()), tmp_path / "run")
    said, err = capfd.readouterr()
    assert said == ""
    lines = err.strip().splitlines()
    assert "stage encoder" in lines[0]
    numbers = [line for line in lines if line.startswith("encoder ")]
    assert [line.split()[1] for line in numbers] == ["1/2", "2/2"]
    assert all(" loss " in line and "read_characters" in line and line.endswith("left") for line in numbers)
    assert lines[-1].endswith(f"--model {folder}")
    for noise in ("Writing", "Loading", "Warning", "train_runtime", "{"):
        assert noise not in err
    assert sorted(losses(tmp_path / "run" / "encoder")) == [1, 2]


def test_tensorboard_can_be_left_out(tmp_path: Path) -> None:
    train(write_recipe(tmp_path, {**short(1), "trackers": []}), tmp_path / "run")
    assert not list((tmp_path / "run" / "lm").glob("runs/*/events*"))


def test_wrong_arguments(tmp_path: Path) -> None:
    path, out = write_recipe(tmp_path, mini_recipe()), tmp_path / "run"
    with pytest.raises(ConfigError, match=r"no stage 'encodr' in .*: it has encoder, lm, both"):
        train(path, out, ["encodr"])
    with pytest.raises(ConfigError, match="--set seed: expected KEY=VALUE"):
        train(path, out, overrides=["seed"])
    with pytest.raises(ConfigError, match=r"stage 'both' starts from .*lm/model, which does not exist: run stage 'lm'"):
        train(path, out, ["both"])


def test_pages_need_a_model_that_reads(tmp_path: Path) -> None:
    recipe = records_recipe(tmp_path / "data")
    recipe["stages"][0]["data"] = {"pages": {}}
    with pytest.raises(ConfigError, match=r"trains on rendered pages, but .* 'projector_vocabulary: pages'"):
        train(write_recipe(tmp_path, recipe), tmp_path / "run")


def test_batches_must_fit_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(tmp_path, short(1, batch_size=3, micro_batch_size=3))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="batch_size is 3, expected a multiple of micro_batch_size 3 x 2 processes"):
        train(path, tmp_path / "run")


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    curves = []
    for micro in (2, 1):
        recipe = records_recipe(tmp_path / f"data{micro}", micro_batch_size=micro, batch_size=2, steps=3)
        recipe["stages"][0]["config"] = {"selector_noise": 0.0, "gate_noise": False}
        recipe["stages"][0]["trains"] = ["projector", "language_model"]
        train(write_recipe(tmp_path, recipe), tmp_path / f"run{micro}")
        curves.append(losses(tmp_path / f"run{micro}" / "3"))
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
