"""GeoQA (the release in the folder GeoQA3): Chinese geometry problems. Training split only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.raw_set import RawSet, Skipped, image_exists, letter, record, with_choices
from slime_vlm.data.smr.safe_pickle import read_pickle


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield the records. The text stays Chinese, as in the paper. A rationale ends with the letter."""
    for row in read_pickle(folder / "train.pk"):
        image = f"image/{row['id']}.png"
        if image_exists(folder, image, skipped):
            rationale = str(row.get("answer") or "").strip()
            answer = f"{rationale}\n故选{letter(int(row['label']))}".strip()
            yield record(f"geoqa3-{row['id']}", image, with_choices(row["subject"], row["choices"]), answer)


SET = RawSet(
    name="GeoQA3",
    folder="GeoQA3",
    licence="none stated",
    origin="repository chen-judge/GeoQA: the corrected release of January 2022",
    files=("train.pk", "image"),
    count=3_499,
    count_source="the training split (not confirmed)",
    convert=convert,
)
