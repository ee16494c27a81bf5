"""Options of `slime train` that only a plan takes are refused by a run: silence would look like consent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slime_vlm.cli import main
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.training.recipe import load_recipe, load_stored_recipe, with_image_folder
from slime_vlm.training.run import train
from tests.training.mini import records_recipe, write_recipe


@pytest.mark.parametrize("option", [["--gpus", "8"], ["--utilisation", "0.5"], ["--gpus", "1"]])
def test_a_run_takes_no_option_of_a_plan(
    option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["slime", "train", str(tmp_path / "none.yaml"), "--out", str(out), *option])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert f"{option[0]} is only for the plan of --dry-run" in said
    assert not out.exists()
    # A plan takes it, and then finds no recipe.
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--dry-run"])
    with pytest.raises(SystemExit):
        main()
    assert "none.yaml" in capsys.readouterr().err


def test_images_of_records_may_lie_elsewhere(tmp_path: Path) -> None:
    recipe = records_recipe(tmp_path / "data")
    source = Path(recipe["stages"][0]["data"]["records"])
    moved = tmp_path / "elsewhere" / "photos"
    moved.mkdir(parents=True)
    for image in source.parent.glob("*.png"):
        image.rename(moved / image.name)
    path = write_recipe(tmp_path, recipe)
    with pytest.raises(DataError, match="no such file"):
        train(path, tmp_path / "without")
    train(path, tmp_path / "run", images=moved)
    stored = load_stored_recipe(tmp_path / "run" / "recipe.yaml")
    assert [stage.data.images for stage in stored.stages] == [str(moved)]


def test_images_of_a_mixture_and_of_no_records() -> None:
    recipe = load_recipe("slime-vicuna-7b")
    names = [stage.name for stage in recipe.stages if stage.data.parts]
    changed = with_image_folder(recipe, names[-1:], "photos")
    for before, after in zip(recipe.stages, changed.stages, strict=True):
        own = [part.images for part in before.data.parts]
        expected = ["photos"] * len(own) if after.name == names[-1] else own
        assert [part.images for part in after.data.parts] == expected
    with pytest.raises(ConfigError, match="--images photos: no stage of this run has records"):
        with_image_folder(load_recipe("nano"), [stage.name for stage in load_recipe("nano").stages], "photos")


def test_the_command_passes_the_folder_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["slime", "train", "nano", "--images", str(tmp_path), "--dry-run"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
