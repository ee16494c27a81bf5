"""Records of JSON (a list) and JSONL files, by their place in the file."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slime_vlm.data.source import Source
from slime_vlm.errors import DataError

_BLANKS = re.compile(r"[ \t\r\n]*")


class JsonRecords(Source):
    """A file of records; it is read through once to find where each begins and ends.

    A line that is no JSON is a record that cannot be used; a list that is no JSON has no records at all.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """Args: the file, and where image paths start (default: the file's folder).

        Raises:
            DataError: the file is missing, is no list, or holds no record.
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
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}") from error
        self.places = np.array(found, dtype=np.int64).reshape(-1, 2)
        if not len(self.places):
            raise DataError(f"{path} holds no record")

    def __len__(self) -> int:
        """Number of records."""
        return len(self.places)

    def read(self, index: int) -> Any:
        """Parse one record."""
        start, end = map(int, self.places[index])
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(end - start)
        try:
            return json.loads(content)
        except ValueError as error:
            raise DataError(f"this line is not JSON: {error}") from None


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    """First and last byte of every line that is not empty."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield start, start + len(line)
            start += len(line)


def _items(path: Path) -> Iterator[tuple[int, int]]:
    """First and last byte of every item of a list; ValueError where it is none."""
    text = path.read_bytes().decode("utf-8")
    decoder = json.JSONDecoder()
    # Windows begins files with a mark of its own.
    place = _after_blanks(text, text.index("[") + 1)
    counted, offset = 0, 0  # this many characters are this many bytes
    mark = text[place : place + 1]
    while mark != "]":
        _, end = decoder.raw_decode(text, place)
        start = offset + len(text[counted:place].encode())
        counted, offset = end, start + len(text[place:end].encode())
        yield start, offset
        place = _after_blanks(text, end)
        mark = text[place : place + 1]
        if mark == ",":
            place = _after_blanks(text, place + 1)
        elif mark != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
    if _after_blanks(text, place + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, place + 1)


def _after_blanks(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return found.end() if found else place
