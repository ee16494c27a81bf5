"""ChartQA: questions about charts, written by people and by machine. Training split only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.raw_set import SHORT_ANSWER, RawSet, Skipped, image_exists, read_json, record


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield the records of both files of the split. Images are in `train/png`."""
    for kind in ("human", "augmented"):
        for number, row in enumerate(read_json(folder / "train" / f"train_{kind}.json")):
            image = f"train/png/{row['imgname']}"
            if image_exists(folder, image, skipped):
                question = f"{row['query']}\n{SHORT_ANSWER}"
                yield record(f"chartqa-{kind}-{number}", image, question, str(row["label"]))


SET = RawSet(
    name="ChartQA",
    folder="ChartQA",
    licence="GPL-3.0 (not confirmed)",
    origin="repository vis-nlp/ChartQA: the folder 'ChartQA Dataset', renamed",
    files=("train/train_human.json", "train/train_augmented.json", "train/png"),
    count=28_299,
    count_source="7,398 human and 20,901 augmented; the paper's appendix says 9.6K, its figure 28.3K",
    convert=convert,
)
