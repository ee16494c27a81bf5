"""Models sharded over processes by DeepSpeed's ZeRO-3: whether it is on, and which checkpoints it can resume from."""

from __future__ import annotations

import os
from pathlib import Path

from slime_vlm.errors import ConfigError


def asks_for_deepspeed() -> bool:
    """Return whether the run was started with DeepSpeed. `accelerate launch` tells its processes."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def build_whole_models() -> None:
    """Reset the ZeRO-3 setting of an earlier stage's arguments, with which transformers would build a sharded model."""
    if asks_for_deepspeed():
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def check_zero_checkpoint(checkpoint: Path, deepspeed: bool, processes: int) -> None:
    """Check that a checkpoint of DeepSpeed is resumed under DeepSpeed, on as many processes as wrote it.

    Without DeepSpeed, Trainer would find the weights and silently start with a new optimizer.

    Args:
        checkpoint: Folder of the checkpoint.
        deepspeed: Whether DeepSpeed is on now.
        processes: Number of processes now.

    Raises:
        ConfigError: It is not.
    """
    wrote = len(list(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt")))
    if wrote and not (deepspeed and wrote == processes):
        raise ConfigError(
            f"{checkpoint} was written by DeepSpeed on {wrote} processes, and there are {processes} "
            f"{'with' if deepspeed else 'without'} it: continue with --resume as the run was started"
        )
    if deepspeed and not wrote:
        raise ConfigError(f"{checkpoint} was not written by DeepSpeed: continue with --resume as the run was started")
