"""Pages as a reader read them: what its language side is taught on once it knows perfect pages, and measured on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slime_vlm.model.character_naming import NamedCharacters
from slime_vlm.model.line_queries import LINES
from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.readable import PageQuestion, ReadablePage
from slime_vlm.pages.text_page import TextPage
from slime_vlm.training.pages.character_cells import character_ids, characters_of

_FARTHEST = 2
"""Places between a character and what was read of it, at most."""

_NEXT = 5
"""Nearest offsets: the place itself and those above, below, left and right of it."""


def read_text(
    page: ReadablePage, named: NamedCharacters, at: tuple[np.ndarray, np.ndarray], cell: int, place: int, rows: int
) -> TextPage:
    """Return the text of a page as it was read.

    Questions point at the characters that were read where the true ones stand. Their answers stay the true ones.

    Args:
        page: The page.
        named: What was read.
        at: int64 [N] each, row of cells and place of every true character.
        cell: Side of a cell in pixels.
        place: Width of a place in pixels.
        rows: Rows of cells of the page.
    """
    order = np.lexsort((named.places, named.lines, named.rows))
    ids, row, column, line = (part[order] for part in (named.ids, named.rows, named.places, named.lines))
    x, y = (column + 0.5) * place, (row + (line + 0.5) / LINES) * cell
    matched = _matched(character_ids(page.characters), at, ids, row, column)
    boxes = np.stack([x - 0.5 * place, y - 1, x + 0.5 * place, y + 1], axis=1).astype(np.float32)
    questions = [
        replace(question, key=_found(matched, question.key), value=_found(matched, question.value))
        for question in page.questions
    ]
    return TextPage(
        characters="".join(characters_of([i]) for i in ids.tolist()),
        boxes=boxes,
        lines=(row * LINES + line).astype(np.int32),
        size=(rows * cell, named.num_places * place),
        questions=questions,
        facts=[(one.key, one.value) for one in questions if len(one.key) and len(one.value)],
    )


def as_read(page: TextPage) -> TextPage:
    """Return the page with answers as they were read: all that a language model can be taught to say.

    Questions whose answers were not read at all are left out.
    """
    questions = []
    for question in page.questions:
        if question.answer == ABSENT:
            questions.append(question)
        elif len(question.value):
            questions.append(replace(question, answer=_spelled(page, question)))
    return replace(page, questions=questions)


def _spelled(page: TextPage, question: PageQuestion) -> str:
    pieces: list[str] = []
    last = -2
    for index in question.value.tolist():
        if pieces and (index != last + 1 or page.lines[index] != page.lines[last]):
            pieces.append(" ")
        pieces.append(page.characters[index])
        last = index
    return "".join(pieces)


def _found(matched: np.ndarray, indices: np.ndarray) -> np.ndarray:
    read = matched[indices]
    return read[read >= 0].astype(np.int32)


def _matched(
    true: np.ndarray, at: tuple[np.ndarray, np.ndarray], ids: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Find what was read of every true character: its index, -1 for nothing.

    First the same character near its place, then any other that is left right beside it.
    """
    by_place: dict[tuple[int, int], list[int]] = {}
    for index, (row, place) in enumerate(zip(rows.tolist(), places.tolist(), strict=True)):
        by_place.setdefault((row, place), []).append(index)
    matched = np.full(len(true), -1)
    near = sorted(
        ((down, right) for down in (-1, 0, 1) for right in range(-_FARTHEST, _FARTHEST + 1)),
        key=lambda offset: abs(offset[0]) + abs(offset[1]),
    )
    for same in (True, False):
        for character in np.flatnonzero(matched < 0).tolist():
            row, place = int(at[0][character]), int(at[1][character])
            for down, right in near if same else near[:_NEXT]:
                here = by_place.get((row + down, place + right), ())
                chosen = next((k for k in here if not same or ids[k] == true[character]), None)
                if chosen is not None:
                    matched[character] = chosen
                    by_place[row + down, place + right].remove(chosen)
                    break
    return matched
