"""What is wrong with a later stage is told before the first one runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.errors import ConfigError, DataError
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.run import train
from slime_vlm.training.stage_checks import check_stage, check_start
from tests.training.mini import records_recipe, write_recipe


def two_stages(folder: Path, **second: Any) -> dict[str, Any]:
    """Two stages, and how the second one differs."""
    recipe = records_recipe(folder / "data", steps=1, batch_size=2)
    recipe["stages"].append({**recipe["stages"][0], "name": "4", **second})
    return recipe


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        ({"data": {"records": "none.jsonl"}}, DataError, "no records at none.jsonl: expected"),
        ({"data": {"records": "a/b", "images": "none"}}, DataError, "no image folder at none: expected"),
        (
            {"batch_size": 3},
            ConfigError,
            "stage '4': batch_size is 3, expected a multiple of micro_batch_size 1 x 2 pro",
        ),
    ],
)
def test_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: dict[str, Any], error: type[Exception], message: str
) -> None:
    recipe = two_stages(tmp_path, **second)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(error, match=message):
        train(write_recipe(tmp_path, recipe), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_packing_is_checked_by_a_dry_run(tmp_path: Path) -> None:
    recipe = two_stages(tmp_path, packing=True, config={"keep_position_ids": True})
    with pytest.raises(ConfigError, match=r"stage '4': packing recounts positions"):
        train(write_recipe(tmp_path, recipe), dry_run=True)
    recipe = two_stages(tmp_path, packing=True)
    kinds = ["linear_attention", "full_attention"]
    recipe["model"]["config"]["text_config"] = {
        "model_type": "qwen3_next",
        "num_hidden_layers": 2,
        "layer_types": kinds,
    }
    loaded = load_recipe(write_recipe(tmp_path, recipe))
    with pytest.raises(ConfigError, match=r"stage '4': packing: the language model has layers of linear_attention"):
        check_stage(loaded, loaded.stages[1])
    check_stage(loaded, loaded.stages[0])


def test_packages_of_four_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = {"merge": False, "base_weights": "4bit"}
    loaded = load_recipe(write_recipe(tmp_path, two_stages(tmp_path, lora=lora)))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    check_start(loaded.stages[0], 1)
    with pytest.raises(ConfigError, match="'4bit' needs bitsandbytes, which is not installed"):
        check_start(loaded.stages[1], 1)
