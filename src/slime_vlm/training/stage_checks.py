"""What of a stage can be told before any stage runs: a run of days must not stop between two of them for that."""

from __future__ import annotations

import importlib.util

import torch

from slime_vlm.checkpoints.quantization import check_quantization
from slime_vlm.data.opening import check_source
from slime_vlm.errors import ConfigError
from slime_vlm.training.architecture import recipe_config
from slime_vlm.training.distributed.deepspeed import asks_for_deepspeed
from slime_vlm.training.packing import check_packing
from slime_vlm.training.recipe import Recipe, Stage


def check_stage(recipe: Recipe, stage: Stage) -> None:
    """Check that a stage's model can be built, and can do what the stage asks of it.

    Raises:
        ConfigError: it cannot.
    """
    try:
        config = recipe_config(recipe, stage.config)
        if stage.packing:
            check_packing(config)
    except ConfigError as error:
        raise ConfigError(f"stage '{stage.name}': {error}") from error


def check_start(stage: Stage, processes: int) -> None:
    """Check that this machine has what a stage needs, and that its batches go round.

    Args:
        stage: the stage.
        processes: of the run.

    Raises:
        ConfigError: a package is missing, or the batch cannot be split over the processes.
        DataError: records are not where the recipe says.
    """
    micro = stage.samples_a_pass(processes)
    if stage.batch_size % (micro * processes):
        raise ConfigError(
            f"stage '{stage.name}': batch_size {stage.batch_size} is no multiple of micro_batch_size {micro} x "
            f"{processes} processes"
        )
    if asks_for_deepspeed():
        _check_deepspeed(stage)
    if stage.lora is not None and stage.lora.base_weights == "4bit":
        check_quantization("4bit")
    for part in stage.data.parts:
        check_source(part.path, part.images)


def _check_deepspeed(stage: Stage) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("the run was started with DeepSpeed, which is not installed: pip install deepspeed")
    if stage.bf16 and not torch.cuda.is_available():
        raise ConfigError(
            f"stage '{stage.name}' has bf16: true, and without a GPU DeepSpeed computes in float32: set bf16: false"
        )
