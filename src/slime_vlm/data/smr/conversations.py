"""Files that contain conversation records already: AI2D, DVQA and GeoQA+ as published for instruction tuning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from slime_vlm.data.record import read_record
from slime_vlm.data.smr.raw_set import Skipped, read_lines
from slime_vlm.errors import DataError


def convert_conversations(folder: Path, file: str, name: str, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSONL file, with image paths that start at `folder`.

    Paths in such files start at various folders above that of the set. The longest end of a path that leads to a file
    is used.

    Args:
        folder: Folder of the set.
        file: Name of the file.
        name: Prefix of the new ids.
        skipped: Counts the rows that become no record.
    """
    for number, row in enumerate(read_lines(folder / file)):
        try:
            found = read_record(row)
        except DataError:
            skipped["no conversation"] += 1
            continue
        image = next((path for path in _ends(str(row.get("image", ""))) if (folder / path).is_file()), None)
        if found.images and image is None:
            skipped["the image is missing"] += 1
            continue
        shown = {"image": image} if image else {}
        # Some files repeat ids. Line numbers are unique.
        yield {"id": f"{name}-{number}", **shown, "conversations": found.conversations}


def _ends(path: str) -> Iterator[str]:
    parts = [part for part in PurePosixPath(path).parts if part not in {"/", "."}]
    for start in range(len(parts)):
        yield "/".join(parts[start:])
