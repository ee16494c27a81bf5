"""ScienceQA: school science with lectures and explanations. Training split, including problems without an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.raw_set import RawSet, Skipped, image_exists, letter, read_json, record, with_choices


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield records of hint, question and choices. The answer is lecture, explanation and letter."""
    problems = read_json(folder / "problems.json")
    for identity in read_json(folder / "pid_splits.json")["train"]:
        row = problems[identity]
        image = f"train/{identity}/{row['image']}" if row.get("image") else None
        if image is not None and not image_exists(folder, image, skipped):
            continue
        hint = [f"Context: {row['hint']}"] if row.get("hint") else []
        question = with_choices("\n".join([*hint, row["question"]]), row["choices"])
        reasons = [str(row.get(key) or "").strip() for key in ("lecture", "solution")]
        answer = "\n".join([*filter(None, reasons), f"The answer is {letter(row['answer'])}."])
        yield record(f"scienceqa-{identity}", image, question, answer)


SET = RawSet(
    name="ScienceQA",
    folder="scienceqa",
    licence="CC BY-NC-SA 4.0",
    origin="repository lupantech/ScienceQA: problems.json, pid_splits.json, and the archive of training images",
    files=("problems.json", "pid_splits.json", "train"),
    count=12_726,
    count_source="the training split (not confirmed); the paper's figure says 12.7K",
    convert=convert,
)
