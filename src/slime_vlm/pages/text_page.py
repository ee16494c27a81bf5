"""A page as text alone: its characters with their boxes, and questions, without pixels.

It is what the language side of a page model learns on, since drawing and reading pixels costs a hundred times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from slime_vlm.pages.readable import PageQuestion, ReadablePage


@dataclass
class TextPage:
    """The text of a page.

    Attributes:
        characters: All characters in the order of the lines.
        boxes: float32 [N, 4], x0, y0, x1, y1 of every character in pixels, see `ReadablePage`.
        lines: int32 [N], the line of every character.
        size: (height, width) in pixels.
        questions: Questions with exact answers.
        facts: For every stated fact the characters that name it and those that answer, int32 each.
    """

    characters: str
    boxes: np.ndarray
    lines: np.ndarray
    size: tuple[int, int]
    questions: list[PageQuestion]
    facts: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


def text_of(page: ReadablePage) -> TextPage:
    """Return the text of a page; its facts are those that its questions ask for."""
    return TextPage(
        characters=page.characters,
        boxes=page.boxes,
        lines=page.lines,
        size=(page.image.shape[0], page.image.shape[1]),
        questions=page.questions,
        facts=[(one.key, one.value) for one in page.questions if len(one.key) and len(one.value)],
    )
