"""Recipes: their keys, the rules of each key, and reading them from YAML. Nothing here imports torch."""

from slime_vlm.training.recipe.loading import load_recipe, recipe_dict
from slime_vlm.training.recipe.schema import (
    DataSource,
    FeatureCache,
    LoraSettings,
    MixturePart,
    ModelSource,
    OracleSettings,
    Recipe,
    Stage,
)

__all__ = [
    "DataSource",
    "FeatureCache",
    "LoraSettings",
    "MixturePart",
    "ModelSource",
    "OracleSettings",
    "Recipe",
    "Stage",
    "load_recipe",
    "recipe_dict",
]
