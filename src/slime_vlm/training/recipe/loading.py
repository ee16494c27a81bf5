"""Read a recipe from YAML, with every key and value checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from slime_vlm.errors import ConfigError
from slime_vlm.training.recipe.checks import recipe_problems
from slime_vlm.training.recipe.schema import Recipe
from slime_vlm.training.recipe.yaml_reader import build, override, read_yaml


def load_recipe(path: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file.
        overrides: dotted keys to YAML values, `{"stages.eye.steps": "20"}`; a stage is named by its name.

    Raises:
        ConfigError: the file is missing or no YAML, or has unknown or missing keys or values out of range; all are
            told at once. Or an override is no YAML or has no place.
    """
    path = Path(path)
    raw = read_yaml(path)
    for key, value in (overrides or {}).items():
        override(raw, key, value)
    problems: list[str] = []
    recipe = build(Recipe, raw, "", problems)
    if not problems:
        problems += recipe_problems(recipe)
    if problems:
        raise ConfigError(f"{path}: " + "; ".join(problems))
    return recipe


def recipe_dict(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain data, defaults filled in."""
    return dataclasses.asdict(recipe)
