"""Several processes that share the questions of a run, as `accelerate launch` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

# The fastest process may wait long for the slowest.
_PATIENCE = timedelta(days=7)


def _alone() -> None:
    """Nobody is to be waited for."""


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: its number.
        count: how many there are.
        device: where its model belongs; None to leave that to `slime_vlm.load`.
        wait: returns once every process has called it.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None
    wait: Callable[[], object] = _alone

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes results."""
        return self.rank == 0


def join_processes(device: str | None = None) -> Processes:
    """Meet the other processes, if there are any.

    Args:
        device: where models are wanted; with several GPUs leave it out, every process takes one of them.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(device=device)
    import torch
    from accelerate import PartialState

    # Where there is no GPU, Accelerate takes each process for the only one unless it is told.
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=_PATIENCE)
    place = device or str(state.device)
    return Processes(state.process_index, state.num_processes, place, state.wait_for_everyone)
