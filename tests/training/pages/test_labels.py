"""Labels of a page small enough to label by hand: tokens of 16 px, tiles of 64 px, letters of 8 px."""

from __future__ import annotations

import numpy as np
import pytest

from slime_vlm.model.tiling import fit_to_grid
from slime_vlm.pages import Page, Question, Run
from slime_vlm.pages.page import Drawing
from slime_vlm.training.pages.labels import (
    OFFSET_LIMIT,
    ROLES,
    UNKNOWN_WORD,
    SlotVocabulary,
    asked_tokens,
    cell_labels,
    global_token_labels,
    tile_token_labels,
)

VOCABULARY = SlotVocabulary(characters="aemn12345678", words=("name", "total"))
NAME = 2  # ids 0 and 1 of a word slot are "no word" and "a word that this tile does not show"


def line(text: str, left: float, top: float, width: float = 8.0, scale: float = 1.0) -> np.ndarray:
    """Boxes of a line of letters, 16 high."""
    edges = left + width * np.arange(len(text) + 1)
    boxes = np.stack([edges[:-1], np.full(len(text), top), edges[1:], np.full(len(text), top + 16)], 1)
    return (boxes * scale).astype(np.float32)


def page(scale: float = 1.0, shift: float = 0.0, height: int = 64, width: int = 128) -> Page:
    """A key, its value that runs over the middle of the page, and small print."""
    runs = [
        Run("name", line("name", 0, 16 + shift, scale=scale), "key", ("name",), (0,)),
        Run("12345678", line("12345678", 48, 16 + shift, scale=scale), "value", ("name",), (0,)),
        Run("a?eeeee", line("a?eeeee", 0, 32 + shift, width=2, scale=scale), "other"),
    ]
    return Page(int(height * scale), int(width * scale), "form", "train", 0, runs, [])


def ids(text: str) -> list[int]:
    return [VOCABULARY.characters.find(c) + 1 for c in text] + [0] * (5 - len(text))


EXPECTED = {
    # (row, column): characters, offset, first word, second word, role
    (1, 0): [*ids("na"), 1 + 0, NAME, 0, 1],
    (1, 1): [*ids("me"), 1 + 2, NAME, 0, 1],
    (1, 3): [*ids("12"), 1 + 0, NAME, 0, 2],
    # The second tile shows neither the key nor the value's beginning: places count from what it shows.
    (1, 4): [*ids("34"), 1 + 0 + OFFSET_LIMIT, UNKNOWN_WORD, 0, 2],
    (1, 5): [*ids("56"), 1 + 2 + OFFSET_LIMIT, UNKNOWN_WORD, 0, 2],
    (1, 6): [*ids("78"), 1 + 4 + OFFSET_LIMIT, UNKNOWN_WORD, 0, 2],
    # More letters than slots, one of them unknown, and no offset for text that nobody asks for.
    (2, 0): [ids("a")[0], 0, *ids("eee")[:3], 0, 0, 0, ROLES.index("other")],
}
RUNS = {(1, 0): 0, (1, 1): 0, (1, 3): 1, (1, 4): 1, (1, 5): 1, (1, 6): 1, (2, 0): 2}


def assert_expected(ids: np.ndarray, run: np.ndarray) -> None:
    assert ids.shape == (4, 8, VOCABULARY.num_slots)
    found = {(r, c): ids[r, c].tolist() for r in range(4) for c in range(8) if ids[r, c].any()}
    assert found == EXPECTED
    assert {(r, c): int(run[r, c]) for r in range(4) for c in range(8) if run[r, c] >= 0} == RUNS


def test_sizes_of_slots() -> None:
    assert VOCABULARY.sizes == [13, 13, 13, 13, 13, 41, 4, 4, 8]
    assert VOCABULARY.num_slots == 9
    assert VOCABULARY.character_id("?") == 0
    with pytest.raises(KeyError):
        VOCABULARY.word_id("date")


def test_tokens_by_hand() -> None:
    labels = tile_token_labels(page(), fit_to_grid(64, 128, 1, 2, 64), VOCABULARY, side=4, view_size=64)
    assert_expected(labels.ids, labels.run)


def test_a_larger_scan_of_the_page_has_the_same_labels() -> None:
    labels = tile_token_labels(page(scale=2.5), fit_to_grid(160, 320, 1, 2, 64), VOCABULARY, side=4, view_size=64)
    assert_expected(labels.ids, labels.run)


def test_a_page_pasted_into_the_middle() -> None:
    flat = page(shift=-16, height=32)
    labels = tile_token_labels(flat, fit_to_grid(32, 128, 1, 2, 64), VOCABULARY, side=4, view_size=64)
    assert_expected(labels.ids, labels.run)


def test_a_named_drawing_tells_its_words_to_the_tokens_over_it() -> None:
    drawn = page()
    # Two tokens wide and three high, its middle on the corner of four tokens; text keeps its own labels.
    drawn.drawings = [
        Drawing("rectangle", ((64.0, 24.0), (96.0, 56.0)), words=("name",)),
        Drawing("ellipse", ((0.0, 48.0), (16.0, 64.0))),
    ]
    grid = fit_to_grid(64, 128, 1, 2, 64)
    assert drawn.drawings[0].box == (64.0, 24.0, 96.0, 56.0)
    labels = tile_token_labels(drawn, grid, VOCABULARY, side=4, view_size=64)
    over = [0] * 6 + [NAME, 0, ROLES.index("label")]
    assert [tuple(place) for place in np.argwhere((labels.ids == over).all(-1))] == [(2, 4), (2, 5)]
    # A question about a label that belongs to the drawing is about the drawing, too.
    drawn.runs[2] = Run(drawn.runs[2].text, drawn.runs[2].boxes, "label", ("name",))
    about = asked_tokens(drawn, labels, VOCABULARY, Question("name?", "a?eeeee", "scene", (), (2,)))
    assert [divmod(int(i), 8) for i in np.flatnonzero(about)] == [(2, 0), (2, 4), (2, 5)]
    about = asked_tokens(drawn, labels, VOCABULARY, Question("name?", "12345678", "form", (0,), (1,)))
    assert [divmod(int(i), 8) for i in np.flatnonzero(about)] == [(1, i) for i in (0, 1, 3, 4, 5, 6)]
    labels.ids[2, 4:6] = 0
    assert_expected(labels.ids, labels.run)


def test_an_empty_page() -> None:
    blank = Page(64, 128, "form", "train", 0, [], [])
    grid = fit_to_grid(64, 128, 1, 2, 64)
    labels = tile_token_labels(blank, grid, VOCABULARY, side=4, view_size=64)
    assert not labels.ids.any()
    assert (labels.run == -1).all()
    assert not global_token_labels(blank, VOCABULARY, side=4, view_size=64, legible=10).ids.any()
    assert not cell_labels(blank, grid, VOCABULARY, side=8, view_size=64).any()


def test_the_whole_page_tells_what_is_legible() -> None:
    square = page(height=128)
    labels = global_token_labels(square, VOCABULARY, side=4, view_size=64, legible=8)
    # At half the size a token holds four letters, and everything is in one view.
    assert labels.ids[0, 0].tolist() == [*ids("name"), 1, NAME, 0, 1]
    assert labels.ids[0, 2].tolist() == [*ids("3456"), 1 + 2, NAME, 0, 2]
    small = global_token_labels(square, VOCABULARY, side=4, view_size=64, legible=9)
    assert small.ids[0, 0].tolist() == [0] * 8 + [1]
    # Squashed letters cannot be read, however high they are.
    squashed = global_token_labels(page(), VOCABULARY, side=4, view_size=64, legible=8)
    assert not squashed.ids[..., :-1].any()
    assert squashed.ids[..., -1].any()


def test_cells_by_hand() -> None:
    cells = cell_labels(page(), fit_to_grid(64, 128, 1, 2, 64), VOCABULARY, side=8, view_size=64)
    assert cells.shape == (8, 16)
    expected = np.zeros((8, 16), int)
    expected[2:4, 0:4] = ids("name")[:4]
    expected[2:4, 6:14] = [VOCABULARY.character_id(c) for c in "12345678"]
    # Letters of 2 px: each cell of 8 px has the one over its middle.
    expected[4:6, 0:2] = [VOCABULARY.character_id("e"), VOCABULARY.character_id("e")]
    assert cells.tolist() == expected.tolist()
