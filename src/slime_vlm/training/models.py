"""The model that a stage starts from: a checkpoint, a new SliME over two pretrained parts, or one from nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from slime_vlm.checkpoints.from_pretrained_parts import assemble
from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.checkpoints.tensor_files import folder_tensors
from slime_vlm.errors import ConfigError
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor
from slime_vlm.training.pages.new_model import new_page_model
from slime_vlm.training.recipe import Recipe
from slime_vlm.training.run_folder import STAGE_FILE


def start_model(
    recipe: Recipe, overrides: dict[str, Any], quantization: str | None = None
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Load or build the model before the first stage.

    Args:
        recipe: The recipe.
        overrides: SlimeConfig values of the stage.
        quantization: Quantization of the language model's layers; only for a checkpoint.
    """
    source = recipe.model
    if source.path is not None:
        return _load(source.path, {**source.config, **overrides}, quantization)
    if source.tokenizer == "pages":
        return new_page_model(recipe, overrides)
    if source.vision and source.llm:
        return new_model(recipe, overrides)
    raise ConfigError("model: expected 'path', 'vision' and 'llm', or 'tokenizer: pages' with a 'config'")


def new_model(recipe: Recipe, overrides: dict[str, Any]) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Build a new SliME over a pretrained vision encoder and language model, with the parts between as published.

    Raises:
        ConfigError: The shape of a pretrained part differs from the recipe's config.
    """
    source = recipe.model
    assert source.vision is not None
    assert source.llm is not None
    return assemble(
        source.vision,
        source.llm,
        conversation=source.conversation,
        dtype=torch.float32,
        seed=recipe.seed,
        fields={**source.config, **overrides},
    )


def _load(
    path: str | Path, overrides: dict[str, Any], quantization: str | None
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    # Quantised weights cannot be moved, so they are loaded on the device of this process.
    on_gpu = quantization is not None and torch.cuda.is_available()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu"
    return load(path, device=device, dtype=torch.float32, quantization=quantization, **overrides)


def base_of(recipe: Recipe, before: list[Path]) -> str:
    """Return the base checkpoint that a stage's adapters record: an absolute path, a hub id or `nano`."""
    if before:
        return str(before[0].resolve())
    path = recipe.model.path
    assert path is not None
    folder = Path(path).expanduser()
    return str(folder.resolve()) if path not in SHIPPED and folder.is_dir() else path


def stage_model(
    folders: list[Path], overrides: dict[str, Any], quantization: str | None = None
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Load the model after one or more stages: the weights of the first folder, then the parts trained by later ones.

    Raises:
        CheckpointError: A folder has no complete weights, in one file or in shards.
        ConfigError: A trained part does not fit into the model of the first folder.
    """
    model, processor = _load(folders[0], overrides, quantization)
    state = model.state_dict()
    for folder in folders[1:]:
        trained = tuple(json.loads((folder / STAGE_FILE).read_text())["trained"])
        for name, stored in folder_tensors(folder).items():
            if not name.startswith(trained):
                continue
            shape = tuple(state[name].shape) if name in state else None
            if shape != stored.shape:
                raise ConfigError(
                    f"{stored.origin} has the shape {list(stored.shape)}, but in {folders[0]} it is "
                    f"{'absent' if shape is None else list(shape)}: stages that are combined need the same model.config"
                )
            with torch.no_grad():
                state[name].copy_(stored.read())
    return model, processor
