"""Cells of 24 px with places of 4 px, on a page of 2 rows and 12 places."""

from __future__ import annotations

import numpy as np

from slime_vlm.model.character_naming import NamedCharacters
from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.readable import PageQuestion, ReadablePage
from slime_vlm.training.pages.character_cells import character_ids
from slime_vlm.training.pages.words.cells import CellSettings, cells_of
from slime_vlm.training.pages.words.readings import as_read, read_text


def page(text: str, *questions: PageQuestion) -> ReadablePage:
    nothing = np.zeros((0, 4), np.float32)
    lines = np.zeros(len(text), np.int32)
    return ReadablePage(
        np.zeros((48, 48, 3), np.uint8), text, nothing, lines, list(questions), "test", "", "train", 0, 9.0
    )


def named(*read: tuple[str, int, int]) -> NamedCharacters:
    """(character, row, place) each."""
    return NamedCharacters(
        ids=np.concatenate([character_ids(character) for character, _, _ in read]),
        rows=np.array([row for _, row, _ in read]),
        places=np.array([place for _, _, place in read]),
        lines=np.zeros(len(read), np.int64),
        probs=np.ones(len(read), np.float32),
        num_places=12,
    )


QUESTION = PageQuestion("Sum?", "41", "field", key=np.array([0, 1]), value=np.array([3, 4]))
AT = (np.array([0, 0, 0, 0, 0]), np.array([0, 2, 4, 6, 8]))
"""Where the characters of "S: 41" stand."""


def test_questions_point_at_what_was_read_where_their_characters_stand() -> None:
    read = read_text(
        page("S: 41", QUESTION), named(("S", 0, 0), (";", 0, 2), ("4", 1, 6), ("1", 0, 9)), AT, 24, 4, rows=2
    )
    # Row by row: the 4 was read in the row below.
    assert read.characters == "S;14"
    assert read.questions[0].key.tolist() == [0, 1]
    assert read.questions[0].value.tolist() == [3, 2]
    assert read.questions[0].answer == "41"
    assert read.size == (48, 48)


def test_cells_are_those_that_named_the_characters() -> None:
    read = read_text(page("S: 41", QUESTION), named(("S", 0, 0), ("4", 0, 6), ("1", 1, 8)), AT, 24, 4, rows=2)
    cells = cells_of(read, CellSettings(size=(24, 24)), np.random.default_rng(0)).ids
    assert cells.shape == (2, 2, 8)
    assert cells[..., 0].tolist() == [character_ids("S4").tolist(), [0, character_ids("1")[0]]]


def test_what_was_misread_is_what_is_learnt() -> None:
    absent = PageQuestion("Tax?", ABSENT, "absent")
    unread = PageQuestion("Gap?", "x", "field", value=np.array([2]))
    read = as_read(
        read_text(
            page("S: 41", QUESTION, absent, unread), named(("S", 0, 0), ("A", 0, 6), ("1", 0, 8)), AT, 24, 4, rows=2
        )
    )
    assert [question.answer for question in read.questions] == ["A1", ABSENT]


def test_a_page_of_which_nothing_was_read() -> None:
    nothing = NamedCharacters(*(np.zeros(0, np.int64) for _ in range(4)), np.zeros(0, np.float32), num_places=12)
    read = read_text(page("S: 41", QUESTION), nothing, AT, 24, 4, rows=2)
    assert read.characters == ""
    assert as_read(read).questions == []
