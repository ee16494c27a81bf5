"""DVQA: reasoning questions about drawn bar charts. Training split only."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.conversations import convert_conversations
from slime_vlm.data.smr.raw_set import SHORT_ANSWER, RawSet, Skipped, image_exists, read_json, record

SAMPLES = 200_000
"""Number of reasoning questions in SMR."""


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield the public sample of 200,000 if it exists, else a sample of our own (the authors' is not known)."""
    ready = "dvqa_train_200k.jsonl"
    if (folder / ready).is_file():
        yield from convert_conversations(folder, ready, "dvqa", skipped)
        return
    rows = [row for row in read_json(folder / "train_qa.json") if row["question_type"] == "reasoning"]
    if len(rows) > SAMPLES:
        skipped["not drawn in the sample"] += len(rows) - SAMPLES
        rows = [rows[index] for index in sorted(random.Random(0).sample(range(len(rows)), SAMPLES))]
    for row in rows:
        image = f"images/{row['image']}"
        if image_exists(folder, image, skipped):
            question = f"{row['question']}\n{SHORT_ANSWER}"
            yield record(f"dvqa-{row['question_id']}", image, question, str(row["answer"]))


SET = RawSet(
    name="DVQA",
    folder="DVQA",
    licence="CC BY-NC 4.0",
    origin="repository kushalkafle/DVQA_dataset: images and train_qa.json; or dvqa_train_200k.jsonl",
    files=("dvqa_train_200k.jsonl|train_qa.json", "images"),
    count=SAMPLES,
    count_source="the paper's appendix, and the public sample",
    convert=convert,
)
