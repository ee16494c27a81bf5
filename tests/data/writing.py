"""Write records with tiny images into every kind of file."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = ("red", "green", "blue", "black", "white")


def make_image(colour: str, height: int = 30, width: int = 40) -> bytes:
    """Return a PNG file."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def turns(*values: str) -> list[dict[str, str]]:
    """Return turns of a human and the model, alternating."""
    return [{"from": ("human", "gpt")[index % 2], "value": value} for index, value in enumerate(values)]


def make_records(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return records r0, r1, ... with an image each. Every fifth is text only."""
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    for index in range(count):
        if index % 5 == 4:
            records.append({"id": f"r{index}", "conversations": turns(f"{index} + 1?", f"{index + 1}")})
            continue
        colour = COLOURS[index % len(COLOURS)]
        (folder / f"{index}.png").write_bytes(make_image(colour, 30 + index))
        records.append(
            {"id": f"r{index}", "image": f"{index}.png", "conversations": turns("<image>\nWhich colour?", colour)}
        )
    return records


def write_lines(path: Path, records: list[Any]) -> Path:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """Write an uncompressed tar file."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
