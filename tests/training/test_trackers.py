from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.trackers import TRACKERS, check_trackers

from .mini import mini_recipe, write_recipe


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
