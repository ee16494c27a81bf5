"""Functions of the task: one question a row, the image it is about, and whether the answer is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image

from slime_vlm.evaluation.metrics import exact_match

PAGES = Path("pages")


def questions(pages: Dataset) -> Dataset:
    """Takes the conversations apart: columns `image`, `question` and `answer`."""

    def apart(batch: dict[str, list[Any]]) -> dict[str, list[str]]:
        rows: dict[str, list[str]] = {"image": [], "question": [], "answer": []}
        for image, turns in zip(batch["image"], batch["conversations"], strict=True):
            texts = [turn["value"].removeprefix("<image>\n") for turn in turns]
            for question, answer in zip(texts[::2], texts[1::2], strict=True):
                for name, value in (("image", image), ("question", question), ("answer", answer)):
                    rows[name].append(value)
        return rows

    return pages.map(apart, batched=True, remove_columns=pages.column_names)


def images(question: dict[str, Any]) -> list[Image.Image]:
    """The page of a question."""
    return [Image.open(PAGES / question["image"])]


def score(question: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """1 for the exact answer, as `slime eval pages` counts."""
    return {"exact_match": exact_match(answers[0], question["answer"])}
