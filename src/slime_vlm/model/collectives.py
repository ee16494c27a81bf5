"""Numbers on which the processes of a training run have to agree."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    """Return the number of processes of the training run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def most_of_all(count: int, device: torch.device) -> int:
    """Return the largest count of all processes. Every process has to call this.

    With weights that are sharded over processes, every use of a part gathers them from all. If one process uses a part
    more often than another, it waits forever.
    """
    if num_processes() == 1:
        return count
    most: Tensor = torch.tensor(count, device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)
