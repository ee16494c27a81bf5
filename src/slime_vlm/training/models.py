"""The model that a recipe starts from: a checkpoint, a new SliME over two pretrained parts, or one from nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from slime_vlm.checkpoints.from_pretrained_parts import assemble
from slime_vlm.checkpoints.loading import SHIPPED, load
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
    """The model before the first stage.

    Args:
        recipe: the recipe.
        overrides: SlimeConfig values of the stage.
        quantization: that of the language model's layers, of a checkpoint alone.
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
    """A new SliME over a pretrained vision encoder and language model; the parts between are drawn as published.

    Raises:
        ConfigError: a pretrained part has another shape than the recipe's config says.
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
    # Quantised weights cannot be moved, so they are put where this process trains.
    on_gpu = quantization is not None and torch.cuda.is_available()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu"
    return load(path, device=device, dtype=torch.float32, quantization=quantization, **overrides)


def base_of(recipe: Recipe, before: list[Path]) -> str:
    """The checkpoint that a stage's adapters lie over, as they record it: a whole path, a hub id or `nano`."""
    if before:
        return str(before[0].resolve())
    path = recipe.model.path
    assert path is not None
    folder = Path(path).expanduser()
    return str(folder.resolve()) if path not in SHIPPED and folder.is_dir() else path


def stage_model(
    folders: list[Path], overrides: dict[str, Any], quantization: str | None = None
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """The model after one or more stages: the weights of the first folder, then what each later one trained.

    Raises:
        CheckpointError: a folder has no whole weights, in one file or in shards.
        ConfigError: what a later one trained does not fit into the model of the first.
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
                    f"{stored.origin} has the shape {list(stored.shape)}, and in {folders[0]} it is "
                    f"{'absent' if shape is None else list(shape)}: stages that start together need one model.config"
                )
            with torch.no_grad():
                state[name].copy_(stored.read())
    return model, processor
