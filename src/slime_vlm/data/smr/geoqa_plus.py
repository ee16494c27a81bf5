"""GeoQA+: more geometry problems, including the training problems of GeoQA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.conversations import convert_conversations
from slime_vlm.data.smr.raw_set import RawSet, Skipped


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Return the records of the public conversation file."""
    return convert_conversations(folder, "geoqa+.jsonl", "geoqa+", skipped)


SET = RawSet(
    name="GeoQA+",
    folder="geoqa+",
    licence="none stated",
    origin="hub OpenGVLab/InternVL-Chat-V1-2-SFT-Data: geoqa+.jsonl and geoqa+_images.zip, unpacked as images",
    files=("geoqa+.jsonl", "images"),
    count=72_318,
    count_source="lines of the public file",
    convert=convert,
)
