"""AI2D: questions about school diagrams, without those of the test split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.conversations import convert_conversations
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


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield the records of the public conversation file if it exists, else the questions of the raw release."""
    ready = "ai2d_train_12k.jsonl"
    if (folder / ready).is_file():
        yield from convert_conversations(folder, ready, "ai2d", skipped)
        return
    held_out = {line.strip() for line in (folder / "ai2d_test_ids.csv").read_text(encoding="utf-8").splitlines()}
    for path in sorted((folder / "questions").glob("*.json")):
        name = path.name.removesuffix(".json")
        questions = read_json(path)["questions"]
        if name.rpartition(".")[0] in held_out:
            skipped["held out for the test split"] += len(questions)
            continue
        for text, row in questions.items():
            # Questions about labels are asked of the diagram whose labels are letters.
            image = f"{'abc_images' if row['abcLabel'] else 'images'}/{name}"
            if image_exists(folder, image, skipped):
                question = with_choices(text, row["answerTexts"], LETTER_ANSWER)
                yield record(f"ai2d-{row['questionId']}", image, question, letter(int(row["correctAnswer"])))


SET = RawSet(
    name="AI2D",
    folder="ai2d",
    licence="CC BY-SA (not confirmed)",
    origin="AI2: ai2d-all.zip with ai2d_test_ids.csv; or ai2d_train_12k.jsonl",
    files=("ai2d_train_12k.jsonl|questions", "ai2d_train_12k.jsonl|ai2d_test_ids.csv", "images", "abc_images"),
    count=12_413,
    count_source="lines of the public file",
    convert=convert,
)
