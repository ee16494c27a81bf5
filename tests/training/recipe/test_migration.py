"""Keys of earlier versions: an error in a recipe, moved silently in the folder of a run (recipe/migration.py)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from slime_vlm.errors import ConfigError
from slime_vlm.training.recipe import Recipe, load_recipe, load_stored_recipe, recipe_dict
from slime_vlm.training.recipe.migration import PAGE_KEYS, move_former_keys
from slime_vlm.training.run_folder import claim
from tests.training.mini import mini_recipe, records_recipe, write_recipe

FORMER_RUN = Path(__file__).parent / "former_run.yaml"


def new_recipe(folder: Path, **first_stage: Any) -> Recipe:
    """The recipe of the former run as it is written now."""
    recipe = mini_recipe()
    recipe["stages"][0]["name"] = "eye"
    recipe["stages"][2]["start"] = ["lm", "eye"]
    records = records_recipe(folder, steps=120, save_minutes=0.0)["stages"][0]
    records |= {"name": "records", "start": ["both"], "data": {"records": "records.json"}}
    recipe["stages"].append(records)
    recipe["stages"][0] |= first_stage
    return load_recipe(write_recipe(folder, recipe))


def test_a_stored_recipe_is_read_as_the_new_one(tmp_path: Path) -> None:
    stored, new = load_stored_recipe(FORMER_RUN), new_recipe(tmp_path)
    assert [stage.page_training for stage in stored.stages] == [stage.page_training for stage in new.stages]
    assert stored.stages[0].page_training is not None
    assert stored.stages[1].page_training is not None
    assert stored.stages[0].page_training.objective == "read"
    assert stored.stages[1].page_training.objective == "symbolic_tokens"
    assert stored.stages[1].page_training.symbolic_tokens.local_side == 12
    assert stored.stages[3].page_training is None


def test_a_run_of_before_goes_on_with_the_new_recipe(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for stage in ("eye", "lm", "both", "records"):
        (out / stage).mkdir(parents=True)
    shutil.copy(FORMER_RUN, out / "recipe.yaml")
    changed = new_recipe(tmp_path, page_training={"objective": "read", "tiles_read": 3})
    with pytest.raises(ConfigError, match=r"stages\.eye\.page_training\.tiles_read was None, now 3"):
        claim(out, changed, ["records"])
    claim(out, new_recipe(tmp_path), ["records"])
    assert yaml.safe_load((out / "recipe.yaml").read_text()) == recipe_dict(new_recipe(tmp_path))


def test_former_keys_in_a_recipe_are_an_error_that_names_the_new_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(FORMER_RUN)
    message = str(caught.value)
    assert "'objective: oracle' of stage 'lm' is now 'page_training.objective: symbolic_tokens'" in message
    assert "'objective' of stage 'eye', 'both', 'records' is now 'page_training.objective'" in message
    for key, name in PAGE_KEYS.items():
        assert f"'{key}' of stage 'eye', " in message
        assert f"is now 'page_training.{name}'" in message
    assert "\n" not in message


def test_former_keys_are_reported_with_all_other_problems(tmp_path: Path) -> None:
    recipe = mini_recipe()
    recipe["stages"][0] |= {"tiles_read": 3, "batch_size": 0}
    with pytest.raises(ConfigError) as caught:
        load_recipe(write_recipe(tmp_path, recipe), {"stages.lm.selector_loss": "0.1"})
    message = str(caught.value)
    assert "'tiles_read' of stage 'encoder' is now 'page_training.tiles_read'" in message
    assert "'selector_loss' of stage 'lm' is now 'page_training.selector_loss'" in message
    assert "'stages.encoder.batch_size' is 0" in message
    assert "unknown key" not in message


@pytest.mark.parametrize(
    "raw", [None, 3, [], {}, {"stages": 3}, {"stages": ["a"]}, {"stages": [{"data": 3, "questions": 1}]}]
)
def test_what_is_no_recipe_is_left_to_the_reader(raw: Any) -> None:
    move_former_keys(raw)
