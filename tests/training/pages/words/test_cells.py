"""Pages in cells, as a reader names them."""

import numpy as np

from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.readable import PageQuestion
from slime_vlm.pages.text_page import TextPage
from slime_vlm.pages.text_sheets import SheetSettings, TextSheets
from slime_vlm.pages.word_lists import read_words
from slime_vlm.training.pages.character_cells import character_ids, characters_of
from slime_vlm.training.pages.words.cells import CellSettings, cells_of, misread


def small_page() -> TextPage:
    """Two lines of characters ten pixels wide: "Sum 42" at the top left, "EUR" below the value."""
    text = "Sum 42EUR"
    lines = np.array([0] * 6 + [1] * 3, np.int32)
    x = np.array([*range(6), 4, 5, 6]) * 10.0
    y = lines * 20.0
    value = np.array([4, 5, 6, 7, 8], np.int32)
    questions = [
        PageQuestion("sum?", "42 EUR", "field", key=np.array([0, 1, 2], np.int32), value=value),
        PageQuestion("total?", ABSENT, "absent"),
    ]
    boxes = np.stack([x, y, x + 10, y + 20], 1).astype(np.float32)
    return TextPage(text, boxes, lines, (64, 70), questions, [(questions[0].key, value)])


def test_by_hand() -> None:
    cells = cells_of(small_page(), CellSettings(size=(32, 32), slots=4), np.random.default_rng(0))
    texts = [[characters_of(cell.tolist()) for cell in row] for row in cells.ids]
    # The middles of the second line lie at 30 pixels, still in the first row; a fifth character does not fit.
    assert texts == [["Sum", " 42E", "R"], ["", "", ""]]
    first, absent = cells.asked
    assert characters_of(first.answer.tolist()) == "42 EUR"
    assert first.cells.tolist() == [1, 1, -1, 1, 1, 2]
    assert absent.absent
    assert [(text, told.tolist()) for text, told in cells.facts] == [("Sum", [0, 1, 2])]
    assert cells.shown.tolist() == [True, True, True, False, False, False]


def test_cells_half_as_high() -> None:
    cells = cells_of(small_page(), CellSettings(size=(16, 32), slots=8), np.random.default_rng(0))
    texts = [[characters_of(cell.tolist()) for cell in row] for row in cells.ids]
    assert texts == [["Sum", " 42", ""], ["", "EU", "R"], ["", "", ""], ["", "", ""]]


def test_answers_are_spelled_by_their_cells() -> None:
    rng = np.random.default_rng(0)
    sheets = TextSheets(read_words(None), SheetSettings(lines=(8, 8)))
    for settings in (CellSettings(slots=12), CellSettings(slots=12, edge=True, misread=0.3)):
        for seed in range(8):
            cells = cells_of(sheets.page(seed), settings, rng)
            flat = cells.ids.reshape(-1, 12)
            for asked in cells.asked:
                for character, cell in zip(asked.answer.tolist(), asked.cells.tolist(), strict=True):
                    assert cell < 0 or character in flat[cell]


def test_misread_keeps_spaces_and_length() -> None:
    ids = character_ids("O l 5 " * 50)
    read = misread(ids, 0.5, np.random.default_rng(0))
    assert len(read) == len(ids)
    assert ((read == ids) | (ids != character_ids(" ")[0])).all()
    assert 0.2 < (read != ids).mean() < 0.5
