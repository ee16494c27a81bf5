"""How large print is beside the usual print of its page (model/cell_runs.py)."""

import torch

from slime_vlm.model.cell_runs import LARGEST, NUM_SIZES, SMALLEST, print_sizes

SPACE = 9
USUAL = -SMALLEST


def row(*counts: int) -> torch.Tensor:
    """A row of cells with so many characters each."""
    cells = torch.zeros(len(counts), 8, dtype=torch.long)
    for cell, count in zip(cells, counts, strict=True):
        cell[:count] = 1
    return cells


def test_half_as_many_characters_are_twice_as_large() -> None:
    # Five cells of four characters, twice; and five of two.
    page = torch.stack([row(4, 4, 4, 4, 4, 0), row(2, 2, 2, 2, 2, 0), row(4, 4, 4, 4, 4, 0)])
    sizes = print_sizes(page, SPACE)
    assert sizes[1, :5].tolist() == [USUAL + 4] * 5
    assert sizes[0].tolist() == [USUAL] * 6


def test_sizes_have_limits_and_pages_do_not_meet() -> None:
    page = torch.stack([row(8, 8, 8, 8), row(8, 8, 8, 8), row(1, 0, 0, 0)])
    small = torch.stack([row(1, 1, 1, 1)] * 3)
    sizes = print_sizes(torch.stack([page, small]), SPACE)
    assert sizes.max() <= LARGEST - SMALLEST == NUM_SIZES - 1
    assert torch.equal(sizes[1], torch.full_like(sizes[1], USUAL))
    assert torch.equal(sizes[0], print_sizes(page, SPACE))


def test_an_empty_page_has_the_usual_size() -> None:
    assert print_sizes(torch.zeros(2, 3, 8, dtype=torch.long), SPACE).tolist() == [[USUAL] * 3] * 2
