"""MATH-Vision: its test split without test-mini, which the authors trained on. Off by default, see `LEAK`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.raw_set import RawSet, Skipped, image_exists, read_lines, record, with_choices
from slime_vlm.data.sources.parquet import import_parquet

LEAK = (
    "MATH-Vision has no training split: SMR trains on its test split without test-mini, so a model trained with it may "
    "be measured on test-mini only, never on the full test split"
)

_COLUMNS = ("id", "question", "options", "image", "answer", "solution")


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield every problem whose id and image are not in test-mini."""
    held_out = list(_rows(folder, "testmini"))
    ids, images = ({str(row[key]) for row in held_out} for key in ("id", "image"))
    for row in _rows(folder, "test"):
        image = str(row["image"])
        if str(row["id"]) in ids or image in images:
            skipped["held out for test-mini"] += 1
        elif image_exists(folder, image, skipped):
            question = re.sub(r"<image\d*>", "", str(row["question"])).strip()
            solution = str(row.get("solution") or "").strip()
            answer = f"{solution}\nThe answer is {row['answer']}.".strip()
            yield record(f"mathvision-{row['id']}", image, with_choices(question, row.get("options") or []), answer)


def _rows(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    if (folder / f"{split}.jsonl").is_file():
        yield from read_lines(folder / f"{split}.jsonl")
        return
    parquet = import_parquet(str(folder))
    for path in sorted(folder.glob(f"data/{split}-*.parquet")):
        with parquet.ParquetFile(path) as file:
            columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()


SET = RawSet(
    name="MATH-Vision",
    folder="mathvision",
    licence="MIT (of the code; none is stated for the data)",
    origin="hub MathLLMs/MathVision: test and testmini as JSONL or in data/, and images",
    files=("test.jsonl|data", "testmini.jsonl|data", "images"),
    count=3_040 - 304,
    count_source="3,040 of test without 304 of test-mini (not confirmed)",
    convert=convert,
    leak=LEAK,
)
