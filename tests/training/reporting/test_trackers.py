from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from slime_vlm.cli import main
from slime_vlm.errors import ConfigError
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.reporting.trackers import TRACKERS, check_trackers
from tests.training.mini import mini_recipe, write_recipe


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    check_trackers([])
    check_trackers(["tensorboard"])
    with pytest.raises(ConfigError, match=r"'trackers' names wandb, which is not installed: pip install wandb, or"):
        check_trackers(["tensorboard", "wandb"])


def test_names(tmp_path: Path) -> None:
    assert load_recipe(write_recipe(tmp_path, mini_recipe())).trackers == ["tensorboard"]
    for names in ([], list(TRACKERS)):
        assert load_recipe(write_recipe(tmp_path, {**mini_recipe(), "trackers": names})).trackers == names
    with pytest.raises(ConfigError, match=r"'trackers' is \['tensorbord'\], expected a list of tensorboard, trackio,"):
        load_recipe(write_recipe(tmp_path, {**mini_recipe(), "trackers": ["tensorbord"]}))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_says_what_to_install_before_it_begins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == name else find(asked))
    monkeypatch.setenv("WANDB_MODE", "offline")
    recipe, out = write_recipe(tmp_path, {**mini_recipe(), "trackers": [name]}), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["slime", "train", str(recipe), "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"slime: 'trackers' names {name}, which is not installed: pip install {name}, or --set 'trackers=[]'"
    assert not out.exists()
