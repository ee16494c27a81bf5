"""A rendered page: pieces of text with exact boxes, drawings behind them, and questions with their answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Colour = tuple[int, int, int]

ABSENT = "not on this page"


@dataclass(frozen=True)
class Run:
    """One piece of text on one line.

    Attributes:
        text: The characters as printed.
        boxes: float32 [len(text), 4], x0, y0, x1, y1 of every character (spaces too) in page pixels; y0 and y1 are
            those of the line, the same for all characters.
        role: "key", "value", "row", "column", "cell", "label" or "other".
        words: At most two words of `words()` that the run spells or belongs to; a vertex of a geometry page counts as
            the word of its capital letter.
        word_runs: For values, cells and labels the index of the run that spells each word, or () when the owner is a
            drawing.
    """

    text: str
    boxes: np.ndarray
    role: str
    words: tuple[str, ...] = ()
    word_runs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Question:
    """A question about one page with its exact answer.

    Attributes:
        text: The question as a person would type it.
        answer: The text of the single run in `value_runs`, or `ABSENT`.
        kind: Kind of the page it was asked about.
        key_runs: Runs that name what is asked for; () if a drawing does, or if it is absent.
        value_runs: The run that answers; () if it is absent.
    """

    text: str
    answer: str
    kind: str
    key_runs: tuple[int, ...] = ()
    value_runs: tuple[int, ...] = ()


@dataclass(frozen=True)
class TextStyle:
    """How one run is drawn: font, size in whole page pixels, colour, baseline in page pixels."""

    font: str
    size: int
    colour: Colour
    baseline: int


@dataclass(frozen=True)
class Drawing:
    """A shape under the text, in page pixels.

    Attributes:
        shape: "rectangle", "ellipse", "polygon" or "line".
        points: Corners; two of them for a rectangle and an ellipse.
        fill: Colour of the inside, None for none.
        outline: Colour of the border or of the line, None for none.
        width: Thickness of the border in page pixels.
        words: At most two words of `words()` that a question calls it by; () for decoration.
    """

    shape: str
    points: tuple[tuple[float, float], ...]
    fill: Colour | None = None
    outline: Colour | None = None
    width: int = 1
    words: tuple[str, ...] = ()

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of its corners."""
        xs, ys = zip(*self.points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass
class Page:
    """Layout of a page, enough to draw it with `render`.

    Attributes:
        height: Page height in pixels.
        width: Page width in pixels.
        kind: What it shows, one of `kinds()`.
        split: "train", "heldout" or "heldout_fonts".
        seed: Seed it was made from.
        runs: Every piece of text.
        questions: Questions with exact answers.
        styles: How each run is drawn, in the order of `runs`.
        drawings: Shapes under the text, in drawing order.
        paper: Background colour.
        noise: Strength of the scan noise, 0 = none.
        layout: Name of the arrangement, to check that held-out arrangements are not seen in training.
    """

    height: int
    width: int
    kind: str
    split: str
    seed: int
    runs: list[Run]
    questions: list[Question]
    styles: list[TextStyle] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    paper: Colour = (255, 255, 255)
    noise: float = 0.0
    layout: str = ""
