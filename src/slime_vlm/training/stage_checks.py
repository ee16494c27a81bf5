"""Validate every stage before the first one starts.

A multi-stage run can take days. Missing packages, missing records and batch sizes that do not divide by the number of
processes are reported up front, not when the affected stage begins.
"""

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
    """Check that a stage's model can be built and supports the stage's options.

    Raises:
        ConfigError: It cannot be built, or does not support them.
    """
    try:
        config = recipe_config(recipe, stage.config)
        if stage.packing:
            check_packing(config)
    except ConfigError as error:
        raise ConfigError(f"stage '{stage.name}': {error}") from error


def check_start(stage: Stage, processes: int) -> None:
    """Check that this machine has the packages and records of a stage, and that its batch divides by the processes.

    Args:
        stage: The stage.
        processes: Number of processes of the run.

    Raises:
        ConfigError: A package is missing, or the batch does not divide by the processes.
        DataError: Records are missing.
    """
    micro = stage.samples_a_pass(processes)
    if stage.batch_size % (micro * processes):
        raise ConfigError(
            f"stage '{stage.name}': batch_size is {stage.batch_size}, expected a multiple of micro_batch_size {micro} "
            f"x {processes} processes"
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
            f"stage '{stage.name}' has bf16: true, but DeepSpeed computes in float32 without a GPU: set bf16: false"
        )
