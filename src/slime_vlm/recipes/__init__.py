"""The recipes that ship with the package. YAML files lie in this folder, and are found by name."""

from slime_vlm.recipes.shipped import FOLDER, ShippedRecipe, recipe_path, shipped_recipes

__all__ = ["FOLDER", "ShippedRecipe", "recipe_path", "shipped_recipes"]
