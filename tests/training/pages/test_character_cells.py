"""Cells of 16 px on a page of one tile of 64 px: letters of 8 px in lines 16 px high."""

from __future__ import annotations

import numpy as np
import pytest

from slime_vlm.model.tiling import fit_to_grid
from slime_vlm.training.pages.character_cells import (
    CHARACTERS,
    NUM_CHARACTER_IDS,
    OTHER,
    CharacterCells,
    cells_right,
    character_cells,
    character_ids,
    characters_of,
    words_found,
)

SIDE = 4


def line(text: str, left: float, top: float, width: float = 8.0) -> np.ndarray:
    edges = left + width * np.arange(len(text) + 1)
    boxes = np.stack([edges[:-1], np.full(len(text), top), edges[1:], np.full(len(text), top + 16)], 1)
    return boxes.astype(np.float32)


def label(*lines: tuple[str, float, float], scale: float = 1.0) -> CharacterCells:
    boxes = np.concatenate([line(*each) for each in lines]) / scale
    size = int(64 / scale)
    return character_cells(
        "".join(text for text, _, _ in lines), boxes, (size, size), fit_to_grid(size, size, 1, 1, 64), SIDE
    )


def reading(**cells: str) -> np.ndarray:
    """Readings by cell, such as r1c2="ab"."""
    predicted = np.zeros((SIDE, SIDE, 4), np.int64)
    for name, text in cells.items():
        predicted[int(name[1]), int(name[3]), : len(text)] = character_ids(text)
    return predicted


def spelled(cells: CharacterCells, row: int, col: int) -> str:
    return characters_of(cells.strings()[row * SIDE + col])


def test_ids_are_latin_1_and_what_windows_adds() -> None:
    assert len(set(CHARACTERS)) == len(CHARACTERS) == NUM_CHARACTER_IDS - 2
    assert {*map(chr, range(0x20, 0x7F)), *"äñß£§°½€“”–•"} <= set(CHARACTERS)
    assert characters_of(character_ids("Grüße: 3 €")) == "Grüße: 3 €"
    assert character_ids("Ω").tolist() == [OTHER]
    assert characters_of([*character_ids("\u2212\u00a07"), 0, OTHER]) == "– 7\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_characters_by_their_middles(scale: float) -> None:
    """Middles at 4, 12 | 20, 28 | …; the second line is 16 px below."""
    cells = label(("ab cd", 0, 0), ("ef", 16, 16), scale=scale)
    assert [spelled(cells, 0, col) for col in range(4)] == ["ab", " c", "d", ""]
    assert [spelled(cells, 1, col) for col in range(4)] == ["", "ef", "", ""]


def test_two_lines_in_a_cell_read_downwards() -> None:
    cells = label(("cd", 0, -1 + 4), ("ab", 0, -4))
    # Middles at 4 and 11 px: both in the first row of cells and more than 0.4 of 16 px apart.
    assert spelled(cells, 0, 0) == "abcd"


def test_a_superscript_is_on_its_line() -> None:
    cells = label(("x", 0, 0), ("2", 8, -3))
    assert spelled(cells, 0, 0) == "x2"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("ab", "c", [True, True]),
        ("a", "bc", [True, True]),
        ("ab", "bc", [True, True]),
        # Neither cell names "b": the one whose character it is is wrong.
        ("a", "c", [False, True]),
        ("ab", "", [True, False]),
        ("ba", "c", [False, True]),
        ("aab", "c", [False, True]),
        # The cell that names "b" is wrong otherwise, so that does not count.
        ("a", "bd", [False, False]),
    ],
)
def test_a_character_near_an_edge_counts_in_either_cell(first: str, second: str, expected: list[bool]) -> None:
    cells = label(("abc", 3, 0))
    right, shows = cells_right(reading(r0c0=first, r0c1=second), cells)
    assert right[0, :2].tolist() == expected
    assert shows.tolist() == [[True, True, False, False], *[[False] * 4] * 3]
    # Blank cells with nothing read are right, too.
    assert right[1:].all()


def test_spaces_are_read_but_do_not_make_a_cell_count() -> None:
    cells = label(("a  b", 0, 0))
    assert spelled(cells, 0, 1) == " b"
    right, shows = cells_right(reading(r0c0="a ", r0c1="b"), cells)
    assert right[0].tolist() == [True, False, True, True]
    only = label((" ", 4, 0))
    right, shows = cells_right(reading(), only)
    assert not shows.any()
    assert not right[0, 0]


def test_what_is_read_into_blank_cells_is_wrong() -> None:
    right, _ = cells_right(reading(r2c2="x"), label(("ab", 0, 0)))
    assert not right[2, 2]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"r0c0": "Amou", "r0c1": "nt d", "r0c2": "ue"}, [True, True, False]),
        # Named on both sides of an edge, and where the line changes from one row of cells to the next.
        ({"r1c0": "Amo", "r1c1": "oun", "r2c2": "t 41"}, [True, False, False]),
        ({"r1c0": "Amo", "r1c1": "un", "r3c2": "t"}, [False, False, False]),
        ({"r0c0": "Amo", "r0c2": "unt"}, [False, False, False]),
        ({"r0c0": "xAm", "r0c1": "oun", "r0c2": "t"}, [True, False, False]),
        # A true double letter is found with and without the second one.
        ({"r0c0": "Bal", "r0c1": "loon"}, [False, False, True]),
        ({"r0c0": "Ball", "r0c1": "oon"}, [False, False, True]),
    ],
)
def test_words_that_cells_spell(cells: dict[str, str], expected: list[bool]) -> None:
    assert words_found(reading(**cells), ["Amount", "due", "Balloon"]) == expected


def test_a_page_without_text() -> None:
    cells = character_cells("", np.zeros((0, 4), np.float32), (64, 64), fit_to_grid(64, 64, 1, 1, 64), SIDE)
    right, shows = cells_right(np.zeros((4, 4, 2), np.int64), cells)
    assert right.all()
    assert not shows.any()
