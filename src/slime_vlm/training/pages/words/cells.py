"""Cells of a page with the characters that they show, as a perfect reader would name them, or one that misreads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.readable import PageQuestion
from slime_vlm.pages.text_page import TextPage
from slime_vlm.training.pages.character_cells import CHARACTERS, EDGE, OTHER, character_ids

SPACE = int(character_ids(" ")[0])

_ALIKE = (
    "0OoQD",
    "1lIi!|",
    "5Ss",
    "8B3",
    "2Zz",
    "rnm",
    "ceo",
    "uvy",
    "ft",
    "hbk",
    "gq9",
    "6b",
    ".,:;",
    "'`",
    "-_~",
    "aeo",
    # Case is what a reader misses most: these letters differ by their height alone.
    *(f"{letter}{letter.upper()}" for letter in "coskpuvwxz"),
)
_SWAPS = {a: [b for group in _ALIKE if a in group for b in group if b != a] for group in _ALIKE for a in group}


@dataclass(frozen=True)
class CellSettings:
    """How a page is cut into cells and read.

    Attributes:
        size: (height, width) of a cell in pixels.
        slots: Characters that a token can name; more are cut off.
        edge: Whether characters near an edge are named by the cell beyond it at times.
        misread: Most characters misread, as a share; each page draws its own share below.
    """

    size: tuple[int, int] = (32, 32)
    slots: int = 8
    edge: bool = False
    misread: float = 0.0


@dataclass
class Asked:
    """A question about cells.

    Attributes:
        question: The question as it was made.
        answer: int64 [n] character ids; empty for what is not on the page.
        cells: int64 [n] cell that shows each character of the answer, -1 for a space between lines.
        slots: int64 [n] its place among the characters of that cell, -1 for one that was cut off.
        key: int64, cells of what is asked.
        absent: Whether the page does not state it.
    """

    question: PageQuestion
    answer: np.ndarray
    cells: np.ndarray
    slots: np.ndarray
    key: np.ndarray
    absent: bool


@dataclass
class PageCells:
    """A page in cells.

    Attributes:
        ids: int64 [R, C, S] character ids, 0 for nothing.
        asked: Its questions.
        facts: For every stated fact the text of its key, and the cells of key and value.
    """

    ids: np.ndarray
    asked: list[Asked]
    facts: list[tuple[str, np.ndarray]]

    @property
    def shown(self) -> np.ndarray:
        """Cells that show more than spaces, bool [R * C]."""
        flat = self.ids.reshape(-1, self.ids.shape[-1])
        return ((flat != 0) & (flat != SPACE)).any(axis=1)


def misread(ids: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Replace a share of the characters by others that look alike, or by any letter."""
    read = ids.copy()
    for index in np.flatnonzero((rng.random(len(ids)) < share) & (ids != SPACE)):
        character = CHARACTERS[ids[index] - 1] if ids[index] != OTHER else "?"
        others = _SWAPS.get(character, ())
        if len(others) and rng.random() < 0.7:
            read[index] = character_ids(str(rng.choice(list(others))))[0]
        else:
            read[index] = rng.integers(character_ids("!")[0], character_ids("~")[0] + 1)
    return read


def cells_of(page: TextPage, settings: CellSettings, rng: np.random.Generator) -> PageCells:
    """Cut a page into cells.

    A question whose answer is not printed keeps its answer and points nowhere. Where the reader misreads a value, the
    answer is what was read: a language model cannot know better.
    """
    height, width = settings.size
    ids = character_ids(page.characters)
    if settings.misread:
        ids = misread(ids, settings.misread * rng.random() ** 2, rng)
    y = (page.boxes[:, 1] + page.boxes[:, 3]) / 2
    x = (page.boxes[:, 0] + page.boxes[:, 2]) / 2
    if settings.edge:
        # A middle within EDGE pixels of an edge lies on either side.
        x = x + rng.uniform(-EDGE, EDGE, len(x))
        shift = rng.uniform(-EDGE, EDGE, int(page.lines.max(initial=0)) + 1)
        y = y + shift[page.lines]
    rows, cols = -(-page.size[0] // height), -(-page.size[1] // width)
    row = np.clip(y // height, 0, rows - 1).astype(np.int64)
    col = np.clip(x // width, 0, cols - 1).astype(np.int64)
    cell = row * cols + col
    # In a cell line by line from top to bottom, and by place within a line.
    middle = np.zeros(int(page.lines.max(initial=0)) + 1)
    np.maximum.at(middle, page.lines, y)
    order = np.lexsort((np.arange(len(cell)), page.lines, middle[page.lines], cell))
    ordered = cell[order]
    begin = np.searchsorted(ordered, ordered)
    slot = np.arange(len(order)) - begin
    fits = slot < settings.slots
    raster = np.zeros((rows * cols, settings.slots), np.int64)
    raster[ordered[fits], slot[fits]] = ids[order[fits]]
    slot_of = np.full(len(order), -1)
    slot_of[order[fits]] = slot[fits]
    facts = [
        (_text_at(page, key), np.unique(np.concatenate([cell[key], cell[value]])))
        for key, value in page.facts
        if len(key) and len(value)
    ]
    asked = [_asked(page, question, ids, cell, slot_of) for question in page.questions]
    return PageCells(raster.reshape(rows, cols, settings.slots), asked, facts)


def _text_at(page: TextPage, indices: np.ndarray) -> str:
    """Return the characters at some indices, a space wherever they do not stand together."""
    pieces: list[str] = []
    last = -2
    for index in indices.tolist():
        if pieces and (index != last + 1 or page.lines[index] != page.lines[last]):
            pieces.append(" ")
        pieces.append(page.characters[index])
        last = index
    return "".join(pieces)


def _asked(page: TextPage, question: PageQuestion, ids: np.ndarray, cell: np.ndarray, slot_of: np.ndarray) -> Asked:
    key = np.unique(cell[question.key]) if len(question.key) else np.zeros(0, np.int64)
    if question.answer == ABSENT:
        nothing = np.zeros(0, np.int64)
        return Asked(question, nothing, nothing, nothing, key, True)
    answer, cells, slots = [], [], []
    last = -1
    for index in question.value.tolist():
        if last >= 0 and page.lines[index] != page.lines[last] and page.characters[last] != " ":
            answer.append(SPACE)
            cells.append(-1)
            slots.append(-1)
        answer.append(int(ids[index]))
        cells.append(int(cell[index]))
        slots.append(int(slot_of[index]))
        last = index
    printed = "".join(CHARACTERS[i - 1] if i != OTHER else "?" for i in answer)
    true = _text_at(page, question.value)
    if true != question.answer or not printed:
        # Not printed as it is answered.
        given = character_ids(question.answer)
        nowhere = np.full(len(given), -1)
        return Asked(question, given, nowhere, nowhere, key, False)
    return Asked(question, np.array(answer), np.array(cells), np.array(slots), key, False)
