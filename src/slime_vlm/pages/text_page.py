"""A page as text alone: its characters with their boxes, and questions, without pixels.

It is what the language side of a page model learns on, since drawing and reading pixels costs a hundred times as much.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

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


def stretched(page: TextPage, rng: np.random.Generator) -> TextPage:
    """Return the page at another size, a little wider or taller, and moved: other cells hold its characters."""
    scale = rng.uniform(0.8, 1.25) * np.array([rng.uniform(0.9, 1.1), 1.0])
    offset = rng.uniform(0, 24, 2)
    # (x, y) of boxes, (height, width) of the page.
    boxes = (page.boxes.reshape(-1, 2, 2) * scale + offset).reshape(-1, 4).astype(np.float32)
    width, height = (np.array(page.size[::-1]) * scale + offset).astype(int).tolist()
    return replace(page, boxes=boxes, size=(height, width))


def write_text_pages(path: Path, pages: Iterable[TextPage]) -> int:
    """Write pages to a compressed file of JSON lines, and return how many."""
    count = 0
    part = path.with_name(path.name + ".part")
    with gzip.open(part, "wt", encoding="utf-8") as file:
        for page in pages:
            questions = [
                {**vars(question), "key": question.key.tolist(), "value": question.value.tolist()}
                for question in page.questions
            ]
            record = {
                "characters": page.characters,
                "boxes": np.round(page.boxes.astype(float), 1).tolist(),
                "lines": page.lines.tolist(),
                "size": page.size,
                "questions": questions,
                "facts": [[key.tolist(), value.tolist()] for key, value in page.facts],
            }
            file.write(json.dumps(record) + "\n")
            count += 1
    part.replace(path)
    return count


def read_text_pages(path: Path) -> Iterator[TextPage]:
    """Read the pages of `write_text_pages`."""

    def indices(values: list[int]) -> np.ndarray:
        return np.array(values, np.int32)

    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            questions = [
                PageQuestion(**{**one, "key": indices(one["key"]), "value": indices(one["value"])})
                for one in record["questions"]
            ]
            yield TextPage(
                characters=record["characters"],
                boxes=np.array(record["boxes"], np.float32).reshape(-1, 4),
                lines=indices(record["lines"]),
                size=tuple(record["size"]),
                questions=questions,
                facts=[(indices(key), indices(value)) for key, value in record["facts"]],
            )
