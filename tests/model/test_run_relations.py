"""Runs know which run is next to them, which stands above them, and how many rows lie between."""

import torch

from slime_vlm.model.run_relations import APART, NEXT, SAME_RUN, number_runs, relate_runs

# A heading over two columns, two rows of a key with a value, and a value cut off by a mark:
#   0 0 . 1 1 1
#   2 2 . 3 . .
#   . . . . . .
#   4 4 . 5 6 .
CELLS = [(0, 0), (0, 1), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1), (1, 3), (3, 0), (3, 1), (3, 3), (3, 4)]
RUNS = [0, 0, 1, 1, 1, 2, 2, 3, 4, 4, 5, 6]


def cells() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, cols = torch.tensor(CELLS).T
    begins = torch.zeros(len(CELLS), dtype=torch.bool)
    begins[-1] = True
    return rows, cols, begins


def test_runs_end_at_gaps_rows_and_marks() -> None:
    assert number_runs(*cells()).tolist() == RUNS


def test_beside_counts_runs() -> None:
    rows, cols, _ = cells()
    beside = relate_runs(rows, cols, torch.tensor(RUNS)).beside
    assert beside[5, 4] == NEXT - 1
    assert beside[4, 6] == NEXT + 2
    assert beside[4, 4] == NEXT
    # The row above, to the left and overlapping; two rows above are none of a row's business.
    assert beside[3, 0] == 2 * NEXT + 1
    assert beside[3, 1] == 2 * NEXT + 2
    assert beside[4, 2] == 0


def test_stacked_counts_rows_between_and_knows_edges() -> None:
    rows, cols, _ = cells()
    stacked = relate_runs(rows, cols, torch.tensor(RUNS)).stacked
    assert stacked[2, 0] == 0  # right above, left-aligned
    assert stacked[4, 0] == 3  # one row between
    assert stacked[6, 1] == 3  # left-aligned but for a column, and row 1 holds a run between
    assert stacked[1, 3] == 15  # right below, left-aligned
    assert stacked[0, 4] == 15 + 3
    assert stacked[2, 2] == SAME_RUN
    assert stacked[2, 3] == APART
    assert stacked[0, 3] == APART


def test_an_empty_page() -> None:
    none = torch.zeros(0, dtype=torch.long)
    relations = relate_runs(none, none, number_runs(none, none, none.bool()))
    assert relations.beside.shape == relations.stacked.shape == (0, 0)
