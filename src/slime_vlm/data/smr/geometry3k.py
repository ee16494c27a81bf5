"""Geometry3K: geometry problems with four choices; the published directories 0 to 2400 are training and validation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.raw_set import LETTER_ANSWER, RawSet, Skipped, image_exists, read_json, record, with_choices

LAST_ID = 2400
"""Problems with higher numbers belong to the test split."""


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield one record per directory. There is no rationale, so the answer is the letter."""
    for path in sorted(folder.glob("*/data.json"), key=lambda path: path.parent.name.zfill(9)):
        number = path.parent.name
        if not number.isdigit() or int(number) > LAST_ID:
            skipped["a problem of the test split"] += 1
            continue
        row = read_json(path)
        image = f"{number}/img_diagram.png"
        if image_exists(folder, image, skipped):
            question = with_choices(row["problem_text"], row["choices"], LETTER_ANSWER)
            yield record(f"geometry3k-{number}", image, question, str(row["answer"]))


SET = RawSet(
    name="Geometry3K",
    folder="Geometry3K",
    licence="MIT (of the code; none is stated for the data)",
    origin="repository lupantech/InterGPS: data/geometry3k, train and val unpacked into one folder",
    files=("0/data.json",),
    count=LAST_ID + 1,
    count_source="directories 0 to 2400 of the authors' README",
    convert=convert,
)
