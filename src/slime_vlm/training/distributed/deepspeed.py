"""Models spread over processes by DeepSpeed's ZeRO-3: where it runs, and which checkpoints it goes on from."""

from __future__ import annotations

import os
from pathlib import Path

from slime_vlm.errors import ConfigError


def asks_for_deepspeed() -> bool:
    """Whether the run was started with DeepSpeed, as `accelerate launch` tells its processes."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def build_whole_models() -> None:
    """Undo what a stage's arguments leave behind: transformers would build the next stage's model in parts at once."""
    if asks_for_deepspeed():
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def check_zero_checkpoint(checkpoint: Path, deepspeed: bool, processes: int) -> None:
    """Check that a checkpoint of DeepSpeed meets as many processes as wrote it.

    Without DeepSpeed, Trainer would find the weights and silently begin with a new optimizer.

    Args:
        checkpoint: its folder.
        deepspeed: whether DeepSpeed is on now.
        processes: of the run now.

    Raises:
        ConfigError: it does not.
    """
    wrote = len(list(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt")))
    if wrote and not (deepspeed and wrote == processes):
        raise ConfigError(
            f"{checkpoint} was written by DeepSpeed on {wrote} processes, and there are {processes} "
            f"{'with' if deepspeed else 'without'} it: go on with --resume as the run was begun"
        )
    if deepspeed and not wrote:
        raise ConfigError(f"{checkpoint} was not written by DeepSpeed: go on with --resume as the run was begun")
