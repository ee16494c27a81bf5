"""The folder of a run belongs to its model and settings, from its first prediction on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.evaluation.run_folder import claim


def test_a_folder_is_bound_by_its_first_prediction(tmp_path: Path) -> None:
    slip, mended = {"model": "nano", "overrides": {"top": 3}}, {"model": "nano", "overrides": {}}
    claim(tmp_path, slip, {"pope": {"split": "test"}})
    (tmp_path / "pope").mkdir()
    claim(tmp_path, mended, {"mme": {"split": "test"}})
    assert json.loads((tmp_path / "run.json").read_text()) == {"settings": mended, "tasks": {"mme": {"split": "test"}}}
    (tmp_path / "pope" / "predictions.part0.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"overrides was \{\} and is \{'top': 3\}"):
        claim(tmp_path, slip, {})
    claim(tmp_path, mended, {"pope": {"split": "test"}})
    assert set(json.loads((tmp_path / "run.json").read_text())["tasks"]) == {"mme", "pope"}
    with pytest.raises(ConfigError, match="pope: split was 'test' and is 'val'"):
        claim(tmp_path, mended, {"pope": {"split": "val"}})


def test_an_ablation_and_benchmarks_have_folders_of_their_own(tmp_path: Path) -> None:
    ablation = {"suite": "pages", "model": "nano", "tiles": 6}
    claim(tmp_path, ablation, {})
    # An ablation has its predictions beside run.json.
    (tmp_path / "predictions.part0.jsonl").write_text("{}\n")
    claim(tmp_path, ablation, {})
    with pytest.raises(ConfigError, match="tiles was 6 and is 4"):
        claim(tmp_path, {**ablation, "tiles": 4}, {})
    with pytest.raises(ConfigError, match="suite was 'pages' and is None"):
        claim(tmp_path, {"model": "nano"}, {"pope": {"split": "test"}})


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another folder"):
        claim(tmp_path / "file", {}, {})
