"""Recipes: their keys, the rule of every key, and reading them from YAML. Nothing here imports torch."""

from slime_vlm.training.recipe.loading import load_recipe, load_stored_recipe, recipe_dict, with_image_folder
from slime_vlm.training.recipe.schema import (
    DataSource,
    FeatureCache,
    LoraSettings,
    MixturePart,
    ModelSource,
    PageTraining,
    Recipe,
    Stage,
    SymbolicTokensSettings,
)

__all__ = [
    "DataSource",
    "FeatureCache",
    "LoraSettings",
    "MixturePart",
    "ModelSource",
    "PageTraining",
    "Recipe",
    "Stage",
    "SymbolicTokensSettings",
    "load_recipe",
    "load_stored_recipe",
    "recipe_dict",
    "with_image_folder",
]
