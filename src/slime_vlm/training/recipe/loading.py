"""Read a recipe from YAML, with every key and value checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from slime_vlm.errors import ConfigError
from slime_vlm.recipes import recipe_path
from slime_vlm.training.recipe.checks import recipe_problems
from slime_vlm.training.recipe.migration import move_former_keys
from slime_vlm.training.recipe.schema import Recipe, Stage
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


def with_image_folder(recipe: Recipe, stages: Collection[str], images: str) -> Recipe:
    """Return a recipe in which the records of some stages have their images in one folder or archive.

    Raises:
        ConfigError: None of these stages has records.
    """

    def changed(stage: Stage) -> Stage:
        data = stage.data
        if stage.name not in stages or not data.parts:
            return stage
        mixture = data.mixture and [dataclasses.replace(part, images=images) for part in data.mixture]
        folder = images if data.records is not None else None
        return dataclasses.replace(stage, data=dataclasses.replace(data, images=folder, mixture=mixture))

    if not any(stage.data.parts for stage in recipe.stages if stage.name in stages):
        raise ConfigError(f"--images {images}: no stage of this run has records; leave it out")
    return dataclasses.replace(recipe, stages=[changed(stage) for stage in recipe.stages])


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
