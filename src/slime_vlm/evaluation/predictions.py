"""Store predictions on disk. Batches are appended whole, so that a run can be killed and resumed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slime_vlm.errors import DataError

FILE = "predictions.jsonl"

Row = dict[str, Any]
"""One prediction: task, split, place, id, prompt, prediction, target, score, tokens, seconds, image_sizes.

`place` is the index of the question in its split. The key is part of the file format.
"""


class PredictionStore:
    """Store the predictions of one task: one part file per process, merged into one file at the end.

    Args:
        folder: Folder of the task.
        part: Rank of this process.
    """

    def __init__(self, folder: Path, part: int = 0) -> None:
        self.folder = folder
        self._path = folder / f"predictions.part{part}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(self._path)

    def done(self) -> dict[str, Row]:
        """Return all stored predictions by question id: those of every part file and of an earlier merge."""
        return {str(row["id"]): row for path in self._files() for row in read_rows(path)}

    def append(self, rows: Sequence[Row]) -> None:
        """Append the predictions of a batch in one write, so that a batch is stored whole or not at all."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self._path.open("ab") as file:
            file.write(text.encode("utf-8", errors="surrogatepass"))

    def merge(self) -> list[Row]:
        """Merge all part files into one, in the order of the questions. Call it in one process, after all are done."""
        rows = sorted(self.done().values(), key=lambda row: int(row["place"]))
        parts = [path for path in self._files() if path.name != FILE]
        write_rows(self.folder / FILE, rows)
        for path in parts:
            path.unlink()
        return rows

    def _files(self) -> list[Path]:
        merged = self.folder / FILE
        return [*([merged] if merged.is_file() else []), *sorted(self.folder.glob("predictions.part*.jsonl"))]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of predictions. An incomplete last line is left out.

    Raises:
        DataError: Any other line is not a prediction.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            # A last line without a line end was cut off by a kill.
            if number == len(lines):
                return
            row = None
        if not _is_prediction(row):
            raise DataError(f"{path}: line {number} is not a prediction; expected a file that `slime eval run` wrote")
        yield row


def _is_prediction(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and "id" in row
        and isinstance(row.get("task"), str)
        and isinstance(row.get("prediction"), str)
        and isinstance(row.get("target"), dict)
        and isinstance(row.get("place", 0), int)
    )


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file of rows atomically."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    part.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    part.replace(path)


def _drop_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
