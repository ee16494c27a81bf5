"""Read a recipe from YAML, with every key and value checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from slime_vlm.errors import ConfigError
from slime_vlm.recipes import recipe_path
from slime_vlm.training.recipe.checks import recipe_problems
from slime_vlm.training.recipe.migration import move_former_keys
from slime_vlm.training.recipe.schema import Recipe
from slime_vlm.training.recipe.yaml_reader import build, override, read_yaml


def load_recipe(path: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file, or the name of a shipped recipe.
        overrides: Dotted keys to YAML values, `{"stages.encoder.steps": "20"}`. A stage is addressed by its name.

    Raises:
        ConfigError: The file is missing or is not YAML, keys are unknown, moved or missing, or values are out of range
            (all reported at once). Or an override is not YAML or does not fit the recipe.
    """
    path = recipe_path(path)
    raw = read_yaml(path)
    for key, value in (overrides or {}).items():
        override(raw, key, value)
    return _checked_recipe(path, raw, move_former_keys(raw))


def load_stored_recipe(path: str | Path) -> Recipe:
    """Read the resolved recipe in the folder of a run, which an earlier version may have written.

    Raises:
        ConfigError: See `load_recipe`; keys that have moved are not an error here.
    """
    raw = read_yaml(Path(path))
    move_former_keys(raw)
    return _checked_recipe(path, raw, [])


def _checked_recipe(path: str | Path, raw: Any, problems: list[str]) -> Recipe:
    recipe = build(Recipe, raw, "", problems)
    if not problems:
        problems += recipe_problems(recipe)
    if problems:
        raise ConfigError(f"{path}: " + "; ".join(problems))
    return recipe


def recipe_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the resolved recipe as plain data, with defaults filled in."""
    return dataclasses.asdict(recipe)
