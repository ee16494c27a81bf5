"""A page as pixels with every character's box, and questions that point at the characters that answer them.

Typeset PDFs and documents laid out by a browser come as `ReadablePage`; so does a page of the renderer by `readable`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from slime_vlm.pages.page import ABSENT, Page
from slime_vlm.pages.render import render


@dataclass(frozen=True)
class PageQuestion:
    """A question about a readable page with its exact answer.

    Attributes:
        text: The question as a person would type it.
        answer: The printed text that answers, line breaks as spaces; `ABSENT` for what the page does not state; a word
            that need not be printed for questions of the families "kind", "colour" and "position".
        family: What is asked: "field", "synonym", "reverse", "cell", "row", "sentence", "title", "absent" and so on.
        wording: The pattern that the text was made from. Patterns are split between training and evaluation.
        key: int32 [K], indices of the characters that name what is asked; empty when none do.
        value: int32 [V], indices of the characters that answer, in reading order; empty when none do.
    """

    text: str
    answer: str
    family: str
    wording: str = ""
    key: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    value: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))


@dataclass
class ReadablePage:
    """A drawn page.

    Attributes:
        image: uint8 [H, W, 3].
        characters: All characters in the order of the lines; one space between the words of a line, none at its ends.
        boxes: float32 [N, 4], x0, y0, x1, y1 of every character in pixels. x is the advance, y the height of the font's
            line, so that the characters of a line share it. On a page in perspective: the upright box around that.
        lines: int32 [N], the line of every character, from 0 without gaps.
        questions: Questions with exact answers.
        source: "typeset", "browser" or "renderer".
        template: What it was made from: a template's name, or a PDF's path within its cache and a page number.
        split: "train" or "heldout".
        seed: Seed it was made from.
        x_height: Median height of a small letter without ascender, in pixels.
        looks: Names of the looks that were put on it, in order; empty for a clean page.
    """

    image: np.ndarray
    characters: str
    boxes: np.ndarray
    lines: np.ndarray
    questions: list[PageQuestion]
    source: str
    template: str
    split: str
    seed: int
    x_height: float
    looks: tuple[str, ...] = ()

    def line_texts(self) -> list[str]:
        """Return the text of every line."""
        if not self.characters:
            return []
        starts = np.flatnonzero(np.diff(self.lines, prepend=-1)).tolist()
        return [self.characters[a:b] for a, b in zip(starts, [*starts[1:], len(self.characters)], strict=True)]

    def text_at(self, indices: np.ndarray) -> str:
        """Return the characters at some indices, a space where a line ends."""
        pieces: list[str] = []
        last_line = -1
        for i in indices.tolist():
            line = int(self.lines[i])
            if pieces and line != last_line:
                pieces.append(" ")
            pieces.append(self.characters[i])
            last_line = line
        return " ".join("".join(pieces).split())

    def window(self, size: tuple[int, int], rng: np.random.Generator) -> ReadablePage:
        """Return a window of at most (height, width) pixels, with the characters that lie whole in it and no questions.

        It is drawn around one of the characters.
        """
        height, width = (min(most, own) for most, own in zip(size, self.image.shape[:2], strict=True))
        x, y = self.boxes[rng.integers(len(self.boxes)), :2].tolist() if len(self.boxes) else (0.0, 0.0)
        top = int(np.clip(y - rng.uniform(0, height), 0, self.image.shape[0] - height))
        left = int(np.clip(x - rng.uniform(0, width), 0, self.image.shape[1] - width))
        moved = self.boxes - np.array([left, top, left, top], np.float32)
        inside = (moved[:, :2] >= 0).all(axis=1) & (moved[:, 2] <= width) & (moved[:, 3] <= height)
        return replace(
            self,
            image=self.image[top : top + height, left : left + width],
            characters="".join(c for c, whole in zip(self.characters, inside.tolist(), strict=True) if whole),
            boxes=moved[inside],
            lines=np.unique(self.lines[inside], return_inverse=True)[1].astype(np.int32),
            questions=[],
        )

    def with_questions(self, questions: list[PageQuestion]) -> ReadablePage:
        """Return the same page with other questions."""
        return replace(self, questions=questions)


def readable(page: Page) -> ReadablePage:
    """Draw a page of the renderer and give it as a readable page, a line for each run."""
    lengths = [len(run.text) for run in page.runs]
    starts = np.cumsum([0, *lengths])
    boxes = np.concatenate([run.boxes for run in page.runs]) if page.runs else np.zeros((0, 4), np.float32)

    def characters_of(runs: tuple[int, ...]) -> np.ndarray:
        spans = [np.arange(starts[run], starts[run + 1], dtype=np.int32) for run in runs]
        return np.concatenate(spans) if spans else np.zeros(0, np.int32)

    questions = [
        PageQuestion(
            text=question.text,
            answer=question.answer,
            family="absent" if question.answer == ABSENT else question.kind,
            key=characters_of(question.key_runs),
            value=characters_of(question.value_runs),
        )
        for question in page.questions
    ]
    sizes = [style.size for style in page.styles] or [0]
    return ReadablePage(
        image=render(page),
        characters="".join(run.text for run in page.runs),
        boxes=boxes,
        lines=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        questions=questions,
        source="renderer",
        template=page.layout or page.kind,
        split="train" if page.split == "train" else "heldout",
        seed=page.seed,
        # Half of the font size: close for the renderer's faces.
        x_height=float(np.median(sizes)) / 2,
    )
