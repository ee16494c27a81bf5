"""How the runs of text of a page stand to each other: which is the next to the left, the next above, under a heading.

Deviation: not in the paper, see `linker`. Distances in cells differ from layout to layout, but a value's key is nearly
always the next run to its left or above it, or the head of its column. So the linker knows runs by their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEXT = 4
"""Runs to the left and right that are told apart; those further away are alike."""

NUM_BESIDE = 2 * NEXT + 1 + 6
"""Relations along a row: runs of the same row by their order, and those of the rows right above and below."""

_ABOVE = (0, 1, 2, 3, 6)
_BELOW = (0, 1, 2)
_ALIGNED = 3

_FIRST_BELOW = _ALIGNED * len(_ABOVE)
SAME_RUN = _FIRST_BELOW + _ALIGNED * len(_BELOW)
APART = SAME_RUN + 1
"""Relation along columns of runs that do not stand above each other."""

NUM_STACKED = APART + 1
"""Relations along columns: runs above and below by the rows between and by their alignment, the same run, apart."""


def number_runs(rows: Tensor, cols: Tensor, begins: Tensor) -> Tensor:
    """Return the run of every cell, int64 [N] counted from 0.

    Args:
        rows: int64 [N] row of every cell that shows something, cells in reading order.
        cols: int64 [N].
        begins: bool [N] a run begins in this cell. It also begins in a new row and behind an empty cell.
    """
    new = begins.clone()
    new[:1] = True
    new[1:] |= (rows[1:] != rows[:-1]) | (cols[1:] != cols[:-1] + 1)
    return new.long().cumsum(0) - 1


@dataclass(frozen=True)
class RunRelations:
    """Relations of the runs of a page: of the one in the second dimension as the one in the first sees it.

    Attributes:
        beside: int64 [M, M] below `NUM_BESIDE`; 0 for runs that are more than a row apart.
        stacked: int64 [M, M] below `NUM_STACKED`.
    """

    beside: Tensor
    stacked: Tensor


def relate_runs(rows: Tensor, cols: Tensor, run: Tensor) -> RunRelations:
    """Relate all runs of a page to each other.

    Args:
        rows: int64 [N] row of every cell, in reading order.
        cols: int64 [N].
        run: int64 [N], see `number_runs`.
    """
    count = int(run[-1]) + 1 if len(run) else 0
    first = torch.searchsorted(run, torch.arange(count, device=run.device))
    last = torch.cat([first[1:] - 1, torch.full_like(first[:1], len(run) - 1)])
    row, left, right = rows[first], cols[first], cols[last]
    down = row - row[:, None]
    # Runs stand above each other if they share a column, or nearly do.
    overlap = (left[:, None] <= right + 1) & (left <= right[:, None] + 1)
    return RunRelations(_beside(row, left, down, overlap), _stacked(row, left, right, down, overlap))


def _beside(row: Tensor, left: Tensor, down: Tensor, overlap: Tensor) -> Tensor:
    place = torch.arange(len(row), device=row.device)
    along = (place - place[:, None]).clamp(-NEXT, NEXT) + NEXT
    side = torch.where(overlap, 1, torch.where(left < left[:, None], 0, 2))
    near = 2 * NEXT + 1 + side + 3 * (down > 0)
    return torch.where(down == 0, along, near).masked_fill(down.abs() > 1, 0)


def _stacked(row: Tensor, left: Tensor, right: Tensor, down: Tensor, overlap: Tensor) -> Tensor:
    # Rows that hold a run above or below, [M, rows], and how many there are up to each row.
    height = int(row.max()) + 1 if len(row) else 0
    held = torch.zeros(len(row), height, dtype=torch.long, device=row.device)
    held.scatter_reduce_(1, row.expand(len(row), -1), overlap.long(), "amax")
    held[torch.arange(len(row)), row] = 0
    until = held.cumsum(1)
    there = until.gather(1, row.expand(len(row), -1))
    here = until.gather(1, row[:, None])
    above = down < 0
    between = torch.where(above, here - there, there - here - 1).clamp(min=0)

    def bucket(least: tuple[int, ...]) -> Tensor:
        return torch.bucketize(between, torch.tensor(least, device=row.device), right=True) - 1

    aligned = torch.where((left - left[:, None]).abs() <= 1, 0, torch.where((right - right[:, None]).abs() <= 1, 1, 2))
    relation = torch.where(above, _ALIGNED * bucket(_ABOVE), _FIRST_BELOW + _ALIGNED * bucket(_BELOW)) + aligned
    relation = relation.masked_fill(~overlap | (down == 0), APART)
    return relation.fill_diagonal_(SAME_RUN)
