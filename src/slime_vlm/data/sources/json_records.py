"""Records of JSON files (a list) and JSONL files, by their position in the file."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slime_vlm.data.source import Source
from slime_vlm.errors import DataError, one_line

_BLANKS = re.compile(r"[ \t\r\n]*")


class JsonRecords(Source):
    """A file of records. One pass finds where each record begins and ends.

    A JSONL line that is not JSON is a bad record. A list that is not JSON is a bad file.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """Find the records of a file.

        Args:
            path: The file.
            images: Where image paths start, by default the folder of the file.

        Raises:
            DataError: The file is missing, is not JSON, or has no record.
        """
        super().__init__(str(path), images or path.parent)
        self.path = path
        if not path.is_file():
            raise DataError(f"no records at {path}: expected a JSON or JSONL file of conversations")
        try:
            with path.open("rb") as file:
                lines = (line.removeprefix(BOM_UTF8).strip() for line in file)
                first = next((line[:1] for line in lines if line), b"")
            found = list(_items(path) if first == b"[" else _lines(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not JSON: {one_line(error)}") from error
        self.spans = np.array(found, dtype=np.int64).reshape(-1, 2)
        if not len(self.spans):
            raise DataError(f"{path} has no record")

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.spans)

    def read(self, index: int) -> Any:
        """Parse one record."""
        start, end = map(int, self.spans[index])
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(end - start)
        try:
            return json.loads(content)
        # A RecursionError comes from lists within lists, thousands deep.
        except (ValueError, RecursionError) as error:
            raise DataError(f"this line is not JSON: {one_line(error)}") from None

    def texts(self) -> Iterator[bytes]:
        """Yield the bytes of every record as they are in the file."""
        with self.path.open("rb") as file:
            for start, end in self.spans.tolist():
                file.seek(start)
                yield file.read(end - start).strip()


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the first byte of every line that is not empty, and the byte after its last."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield start, start + len(line)
            start += len(line)


def _items(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the first byte of every item of a list, and the byte after its last.

    Raises:
        ValueError: The file is not a JSON list.
    """
    text = path.read_bytes().decode("utf-8")
    decoder = json.JSONDecoder()
    # Start at the bracket: Windows puts a byte order mark before it.
    position = _after_blanks(text, text.index("[") + 1)
    counted, offset = 0, 0  # the first `counted` characters take `offset` bytes
    mark = text[position : position + 1]
    while mark != "]":
        _, end = decoder.raw_decode(text, position)
        start = offset + len(text[counted:position].encode())
        counted, offset = end, start + len(text[position:end].encode())
        yield start, offset
        position = _after_blanks(text, end)
        mark = text[position : position + 1]
        if mark == ",":
            position = _after_blanks(text, position + 1)
        elif mark != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
    if _after_blanks(text, position + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, position + 1)


def _after_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position
