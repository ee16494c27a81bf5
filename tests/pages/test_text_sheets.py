"""Sheets of keys and values without pixels."""

from dataclasses import replace

import numpy as np
import pytest

from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.splits import is_heldout_key
from slime_vlm.pages.text_page import TextPage, stretched
from slime_vlm.pages.text_sheets import SheetSettings, TextSheets
from slime_vlm.pages.word_lists import read_words

WORDS = read_words(None)


def text_at(page: TextPage, indices: np.ndarray) -> str:
    return "".join(page.characters[i] for i in indices.tolist())


@pytest.mark.parametrize("layout", ["beside", "above", "table", "several"])
def test_answers_stand_where_they_are_said_to(layout: str) -> None:
    sheets = TextSheets(WORDS, SheetSettings(lines=(5, 12), layouts=((layout, 1.0),), absent=0.2))
    for seed in range(20):
        page = sheets.page(seed)
        assert len(page.characters) == len(page.boxes) == len(page.lines)
        assert (page.boxes[:, :2] >= 0).all()
        assert page.boxes[:, 3].max() <= page.size[0]
        assert page.boxes[:, 2].max() <= page.size[1]
        assert len({question.text for question in page.questions}) > 1
        for question in page.questions:
            if question.answer == ABSENT:
                assert not len(question.value)
            else:
                assert text_at(page, question.value).replace(" ", "") == question.answer.replace(" ", "")
                assert len(question.key)


def test_texts_do_not_overlap() -> None:
    sheets = TextSheets(WORDS, SheetSettings(lines=(8, 20)))
    for seed in range(30):
        page = sheets.page(seed)
        middles = (page.boxes[:, :2] + page.boxes[:, 2:]) / 2
        for line in np.unique(page.lines):
            box = page.boxes[page.lines == line]
            left, top, right, bottom = box[0, 0], box[0, 1], box[-1, 2], box[0, 3]
            others = middles[page.lines != line]
            x, y = others[:, 0], others[:, 1]
            inside = (x > left) & (x < right) & (y > top + 0.2 * (bottom - top)) & (y < bottom - 0.2 * (bottom - top))
            assert not inside.any(), (seed, line)


def test_seeds_repeat_and_splits_share_no_key() -> None:
    settings = SheetSettings(lines=(6, 6), layouts=(("beside", 1.0),))
    assert TextSheets(WORDS, settings).page(3).characters == TextSheets(WORDS, settings).page(3).characters
    for split in ("train", "heldout"):
        sheets = TextSheets(WORDS, replace(settings, keys=split))
        for seed in range(10):
            page = sheets.page(seed)
            for named, _ in page.facts:
                assert is_heldout_key(text_at(page, named)) == (split == "heldout")


def test_a_stretched_page_keeps_its_text_and_order() -> None:
    page = TextSheets(WORDS, SheetSettings(lines=(6, 6))).page(1)
    moved = stretched(page, np.random.default_rng(0))
    assert (moved.characters, moved.questions) == (page.characters, page.questions)
    assert not np.allclose(moved.boxes, page.boxes)
    assert np.array_equal(np.argsort(moved.boxes[:, 0], kind="stable"), np.argsort(page.boxes[:, 0], kind="stable"))
    # One scale for each direction.
    widths, heights = (moved.boxes[:, k + 2] - moved.boxes[:, k] for k in (0, 1))
    assert np.ptp(widths / (page.boxes[:, 2] - page.boxes[:, 0])) < 1e-3
    assert np.ptp(heights / (page.boxes[:, 3] - page.boxes[:, 1])) < 1e-3
    assert (moved.boxes[:, 2:] <= np.array(moved.size)[::-1] + 1).all()
