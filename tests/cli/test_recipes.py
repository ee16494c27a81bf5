"""`slime recipes`: every shipped recipe is listed and described, and can be copied and read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from slime_vlm.cli import app
from slime_vlm.errors import ConfigError
from slime_vlm.recipes import FOLDER, recipe_path, shipped_recipes
from slime_vlm.training.recipe import load_recipe

NAMES = [recipe.name for recipe in shipped_recipes()]


def test_the_list_names_every_recipe_with_its_purpose_and_command() -> None:
    assert {"nano", "finetune-nano", "ablations/joint", "accelerate/fsdp2"} <= set(NAMES)
    lines = CliRunner().invoke(app, ["recipes", "list"]).output.splitlines()
    assert lines[::3] == NAMES
    for recipe, purpose, command in zip(shipped_recipes(), lines[1::3], lines[2::3], strict=True):
        assert purpose.endswith("."), f"{recipe.path} needs a 'description' on one line"
        assert command.split()[0] in {"slime", "torchrun", "accelerate", "python"}, f"first comment of {recipe.path}"


def test_descriptions_are_those_that_yaml_reads() -> None:
    for recipe in shipped_recipes():
        read = yaml.safe_load(recipe.path.read_text())
        assert recipe.purpose == read.get("description", recipe.purpose)
        assert recipe.name.rsplit("/", 1)[-1] == read.get("name", recipe.path.stem)


@pytest.mark.parametrize("name", ["nano", "ablations/joint"])
def test_recipes_are_read_by_name(name: str) -> None:
    assert load_recipe(name) == load_recipe(FOLDER / f"{name}.yaml")


def test_a_file_comes_before_a_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").write_text("name: mine")
    assert recipe_path("nano") == Path("nano")
    # Nothing outside of the folder is a shipped recipe.
    assert recipe_path("../recipes/nano") == Path("../recipes/nano")
    assert recipe_path(tmp_path / "mine.yaml") == tmp_path / "mine.yaml"


def test_a_copy_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = (FOLDER / "accelerate" / "fsdp2.yaml").read_bytes()
    for arguments, target in (([], "fsdp2.yaml"), (["new/mine.yaml"], "new/mine.yaml"), (["new"], "new/fsdp2.yaml")):
        done = CliRunner().invoke(app, ["recipes", "copy", "accelerate/fsdp2", *arguments])
        assert done.exit_code == 0
        assert f"Copied to {target}" in done.output
        assert (tmp_path / target).read_bytes() == source


def test_a_copy_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano.yaml").write_text("mine")
    done = CliRunner().invoke(app, ["recipes", "copy", "nano"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("nano.yaml exists")
    assert (tmp_path / "nano.yaml").read_text() == "mine"


def test_an_unknown_name_is_answered_with_the_names() -> None:
    done = CliRunner().invoke(app, ["recipes", "copy", "mega"])
    assert isinstance(done.exception, ConfigError)
    assert "no shipped recipe is named 'mega', expected one of finetune-lora-24gb, " in str(done.exception)
