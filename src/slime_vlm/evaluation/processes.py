"""Share the questions of a run among the processes that `accelerate launch` starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

# The fastest process may have to wait long for the slowest.
_PATIENCE = timedelta(days=7)


def _alone() -> None:
    """Return at once: there is no other process to wait for."""


@dataclass(frozen=True)
class Processes:
    """This process and how many there are.

    Attributes:
        rank: Index of this process.
        count: Number of processes.
        device: Device of this process's model. None leaves the choice to `slime_vlm.load`.
        wait: Barrier that returns once every process has called it.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None
    wait: Callable[[], object] = _alone

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0


def join_processes(device: str | None = None) -> Processes:
    """Return this process's rank and device, after joining the other processes if there are any.

    Args:
        device: Device to use. With several GPUs leave it out: every process then takes one of them.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(device=device)
    import torch
    from accelerate import PartialState

    # Without a GPU, Accelerate treats each process as the only one unless `cpu` is set.
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=_PATIENCE)
    own_device = device or str(state.device)
    return Processes(state.process_index, state.num_processes, own_device, state.wait_for_everyone)
