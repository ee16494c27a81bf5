"""TabMWP: word problems about tables, solved step by step. Training and development splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.raw_set import RawSet, Skipped, image_exists, read_json, record, with_choices


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield the records. The image is the drawn table, the answer is the solution and its result."""
    for split in ("train", "dev"):
        for identity, row in read_json(folder / f"problems_{split}.json").items():
            image = f"tables/{identity}.png"
            if image_exists(folder, image, skipped):
                solution = str(row.get("solution") or "").strip()
                answer = f"{solution}\nThe answer is {row['answer']}.".strip()
                question = with_choices(row["question"], row.get("choices") or [])
                yield record(f"tabmwp-{identity}", image, question, answer)


SET = RawSet(
    name="TabMWP",
    folder="tabmwp",
    licence="CC BY-NC-SA 4.0",
    origin="repository lupantech/PromptPG: data/tabmwp",
    files=("problems_train.json", "problems_dev.json", "tables"),
    count=23_059 + 7_686,
    count_source="training and development splits, the only sum near the paper's 30K",
    convert=convert,
)
