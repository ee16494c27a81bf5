"""What the processes of one training run have to agree on."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def most_of_all(count: int, device: torch.device) -> int:
    """The largest of the counts of all processes of a run, each of which has to ask.

    Where weights are spread over processes, every use of a part gathers them from all: a part that one process uses
    more often than another would wait for ever.
    """
    if num_processes() == 1:
        return count
    most: Tensor = torch.tensor(count, device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)
