from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.errors import CheckpointError, ConfigError
from slime_vlm.training.recipe import Recipe, load_recipe
from slime_vlm.training.run_folder import claim, stage_folders, writing
from tests.training.mini import mini_recipe, write_recipe

ALL = ("encoder", "lm", "both")


def changed(tmp_path: Path, stage: int | None = None, **values: Any) -> Recipe:
    """The mini recipe with some values of a stage (or its own) replaced."""
    recipe = mini_recipe()
    (recipe if stage is None else recipe["stages"][stage]).update(values)
    return load_recipe(write_recipe(tmp_path / "changed", recipe))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Folder of a run of the mini recipe whose first stage has begun."""
    claim(tmp_path / "run", changed(tmp_path), ALL)
    (tmp_path / "run" / "encoder").mkdir()
    return tmp_path / "run"


def test_what_a_stage_starts_from(tmp_path: Path) -> None:
    recipe = changed(tmp_path)
    encoder, lm, both = (stage_folders(recipe, stage, Path("out")) for stage in recipe.stages)
    assert encoder == lm == []
    assert both == [Path("out/lm/model"), Path("out/encoder/model")]
    recipe = changed(tmp_path, 1, start=None)
    assert stage_folders(recipe, recipe.stages[1], Path("out")) == [Path("out/encoder/model")]


def test_the_same_recipe_is_let_in(out: Path, tmp_path: Path) -> None:
    claim(out, changed(tmp_path), ALL)


@pytest.mark.parametrize(
    ("stage", "values", "expected"),
    [
        (0, {"steps": 9}, "stages.encoder.steps was 8, now 9"),
        (0, {"data": {"pages": {"tiles": [2, 3]}}}, "stages.encoder.data.pages.tiles was [2, 2], now [2, 3]"),
        (None, {"seed": 5}, "seed was 1, now 5"),
        (None, {"name": "other"}, "name was mini, now other"),
    ],
)
def test_another_recipe_is_refused(
    out: Path, tmp_path: Path, stage: int | None, values: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match="holds a run of another recipe") as caught:
        claim(out, changed(tmp_path, stage, **values), ALL)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    # Nothing was written over, and taking the file away is the way out.
    with pytest.raises(ConfigError):
        claim(out, changed(tmp_path, stage, **values), ALL)
    (out / "recipe.yaml").unlink()
    claim(out, changed(tmp_path, stage, **values), ALL)


def test_what_does_not_matter_may_change(out: Path, tmp_path: Path) -> None:
    claim(out, changed(tmp_path, 1, steps=100), ALL)  # has not begun
    claim(out, changed(tmp_path, 0, save_minutes=1.0, source="here"), ALL)
    claim(out, changed(tmp_path, 0, data={**mini_recipe()["stages"][0]["data"], "workers": 2}), ALL)
    claim(out, changed(tmp_path, None, description="new", trackers=[]), ALL)
    claim(out, changed(tmp_path, 0, steps=100), ["lm"])  # lm does not build on encoder


def test_a_begun_stage_may_not_be_missing(out: Path, tmp_path: Path) -> None:
    """Under a new name it would start over, and the run would have two encoders."""
    recipe = mini_recipe()
    recipe["stages"][0]["name"], recipe["stages"][2]["start"] = "eye", ["lm", "eye"]
    renamed = load_recipe(write_recipe(tmp_path / "renamed", recipe))
    for stages in (("eye", "lm", "both"), ("lm",)):
        with pytest.raises(
            ConfigError, match="has begun stage 'encoder', but this recipe has only eye, lm, both;"
        ) as e:
            claim(out, renamed, stages)
        assert "\n" not in str(e.value)
    (out / "recipe.yaml").unlink()
    claim(out, renamed, ["eye"])


def test_a_stage_that_has_not_begun_may_be_renamed(out: Path, tmp_path: Path) -> None:
    recipe = mini_recipe()
    recipe["stages"][1]["name"], recipe["stages"][2]["start"] = "words", ["words", "encoder"]
    claim(out, load_recipe(write_recipe(tmp_path / "renamed", recipe)), ["encoder", "words", "both"])


def test_a_recipe_of_another_version_is_one_line(out: Path, tmp_path: Path) -> None:
    path = out / "recipe.yaml"
    path.write_text(path.read_text() + "strange: 1\n")
    with pytest.raises(ConfigError, match=r"unknown key 'strange'.*delete that file"):
        claim(out, changed(tmp_path), ALL)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="file is a file, expected a folder for the run; choose another --out"):
        claim(tmp_path / "file", changed(tmp_path), ALL)


def test_failures_to_write_become_one_line(tmp_path: Path) -> None:
    failures = (
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    )
    for failure in failures:
        with pytest.raises(CheckpointError, match=r"cannot write to .*--resume"), writing(tmp_path):
            raise failure
    for failure in (RuntimeError("shapes do not match"), OSError(errno.ENOENT, "No such file")):
        with pytest.raises(type(failure)), writing(tmp_path):
            raise failure
