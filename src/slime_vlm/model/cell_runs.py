"""Where in its run of text every token of a page stands.

Deviation: not in the paper. A run begins at a row's first character, after a gap, and after the mark that ends a key
(":" or "="). A language model that copies a value then need not count: the token whose run offset is the number of
characters copied so far comes next.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST, MOST = -8, 23
"""Offsets are limited to these. Below zero: a run begins within the token, after so many characters."""

NUM_OFFSETS = MOST - LEAST + 1


def run_offsets(ids: Tensor, space: int, marks: tuple[int, ...], digits: tuple[int, int]) -> Tensor:
    """Return the offset of every cell's first character in the run that the cell's last character belongs to.

    Args:
        ids: int64 [..., R, C, S] character ids in reading order, 0 for nothing.
        space: Id of the space.
        marks: Ids of the characters that end a key.
        digits: First and last id of the digits. A mark after a digit ends nothing: "12:30".

    Returns:
        int64 [..., R, C] from 0 to `NUM_OFFSETS` - 1, `LEAST` being 0; that of offset 0 for a cell that shows nothing.
    """
    columns, slots = ids.shape[-2:]
    flat = ids.reshape(-1, slots)
    inked = (flat != 0) & (flat != space)
    blank = ~inked.any(dim=1)
    row = torch.arange(len(flat), device=ids.device).div(columns, rounding_mode="floor")
    crossed = blank.long().cumsum(0) + row
    cell, slot = (flat != 0).nonzero(as_tuple=True)
    character = flat[cell, slot]
    index = torch.arange(len(cell), device=ids.device)
    ink = (character != space).nonzero()[:, 0]
    begins = torch.ones_like(ink, dtype=torch.bool)
    before = ink[:-1]
    after_digit = torch.zeros_like(begins)
    after_digit[1:] = (character[ink[:-1]] >= digits[0]) & (character[ink[:-1]] <= digits[1])
    ends_key = torch.isin(character[ink], torch.tensor(marks, device=ids.device)) & ~after_digit
    begins[1:] = (crossed[cell[ink[1:]]] != crossed[cell[before]]) | ends_key[:-1]
    start = torch.where(begins, index[ink], 0).cummax(0).values if len(ink) else ink
    # The first character of a cell, and the run of its last that is no space.
    offsets = torch.zeros(len(flat), dtype=torch.long, device=ids.device)
    last_start = offsets.scatter_reduce(0, cell[ink], start, "amax", include_self=False)
    first = torch.zeros_like(offsets).scatter_reduce(0, cell, index, "amin", include_self=False)
    offsets = (first - last_start).masked_fill(blank, 0)
    return (offsets.clamp(LEAST, MOST) - LEAST).reshape(ids.shape[:-1])


SMALLEST, LARGEST = -4, 8
"""Sizes of print are limited to these quarters of an octave, from a page's usual size."""

NUM_SIZES = LARGEST - SMALLEST + 1


def print_sizes(ids: Tensor, space: int) -> Tensor:
    """Return how large every cell's print is beside the usual print of its page, by how few characters a cell holds.

    Deviation: not in the paper. Titles and totals are printed larger, and characters alone do not show it.

    Args:
        ids: int64 [..., R, C, S] character ids, 0 for nothing.
        space: Id of the space.

    Returns:
        int64 [..., R, C] from 0 to `NUM_SIZES` - 1. The usual size, and that of a cell that shows nothing, is
        -`SMALLEST`; twice that size is 4 more.
    """
    columns = ids.shape[-2]
    shown = ((ids != 0) & (ids != space)).any(dim=-1)
    flat = shown.flatten()
    row = torch.arange(len(flat), device=ids.device).div(columns, rounding_mode="floor")
    run = (~flat).long().cumsum(0) + row
    count = int(run[-1]) + 1 if len(run) else 0
    characters = torch.zeros(count, device=ids.device).index_add(
        0, run, ((ids != 0).sum(dim=-1).flatten() * flat).float()
    )
    cells = torch.zeros(count, device=ids.device).index_add(0, run, flat.float())
    # A run that begins and ends anywhere in its first and last cell is about a cell shorter than its cells.
    width = (cells - 1).clamp(min=0.7) / characters.clamp(min=1)
    size = width[run].view(shown.shape).log2().masked_fill(~shown, torch.nan)
    usual = size.flatten(-2).nanmedian(dim=-1).values[..., None, None]
    octaves = (size - usual).nan_to_num(0.0)
    return (4 * octaves).round().long().clamp(SMALLEST, LARGEST) - SMALLEST
