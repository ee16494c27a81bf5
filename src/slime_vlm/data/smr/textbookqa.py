"""TextbookQA: questions about textbook diagrams, and teaching images to describe. Training split only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.raw_set import (
    LETTER_ANSWER,
    RawSet,
    Skipped,
    image_exists,
    letter,
    read_json,
    record,
    with_choices,
)

DESCRIBE = (
    "Describe what this diagram shows.",
    "Explain the picture as a textbook would.",
    "What can be learnt from this picture?",
    "Give an account of the diagram and of its parts.",
)
"""Instructions for teaching images, used in turn. They are ours, the paper has sixteen others."""


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield the diagram questions of each lesson, then its teaching images with their texts."""
    for lesson in read_json(folder / "train" / "tqa_v1_train.json"):
        yield from _questions(folder, lesson, skipped)
        yield from _descriptions(folder, lesson, skipped)


def _questions(folder: Path, lesson: dict[str, Any], skipped: Skipped) -> Iterator[dict[str, Any]]:
    for identity, row in lesson["questions"]["diagramQuestions"].items():
        choices = [choice["processedText"] for _, choice in sorted(row["answerChoices"].items())]
        index_of = {key: index for index, key in enumerate(sorted(row["answerChoices"]))}
        right = str(row["correctAnswer"]["processedText"]).strip().lower()
        if right not in index_of:
            skipped["the right answer is not among the choices"] += 1
            continue
        image = f"train/{row['imagePath']}"
        if image_exists(folder, image, skipped):
            question = with_choices(row["beingAsked"]["processedText"], choices, LETTER_ANSWER)
            yield record(f"textbookqa-{identity}", image, question, letter(index_of[right]))


def _descriptions(folder: Path, lesson: dict[str, Any], skipped: Skipped) -> Iterator[dict[str, Any]]:
    for number, (identity, row) in enumerate(sorted(lesson.get("instructionalDiagrams", {}).items())):
        image, text = f"train/{row['imagePath']}", str(row.get("processedText") or "").strip()
        if not text:
            skipped["a teaching image without a text"] += 1
        elif image_exists(folder, image, skipped):
            yield record(f"textbookqa-{identity}", image, DESCRIBE[number % len(DESCRIBE)], text)


SET = RawSet(
    name="TextbookQA",
    folder="tqa",
    licence="CC BY-NC 3.0 (not confirmed)",
    origin="AI2: tqa_train_val_test.zip, unpacked (the authors' README has it under GeoQA3 by mistake)",
    files=("train/tqa_v1_train.json",),
    count=9_500,
    count_source="the paper's share of SMR, rounded",
    convert=convert,
)
