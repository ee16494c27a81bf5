"""Records of JSON files (a list) and JSONL files, by their position in the file."""

from __future__ import annotations

import codecs
import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from slime_vlm.data.source import Source
from slime_vlm.errors import DataError, one_line

MAX_RECORD = 256_000_000
"""Most bytes of a record, with the images that are stored in it."""

# Bytes that are read at a time.
_CHUNK = 1 << 20

# Splits behind each newline, and not at carriage returns as `splitlines` does.
_NEWLINES = re.compile(rb"(?<=\n)")
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
            found = list(_items(path) if _first_byte(path) == b"[" else _lines(path))
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
        if end - start > MAX_RECORD:
            raise DataError(f"this record has {end - start:,} bytes, expected at most {MAX_RECORD:,}")
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


def _first_byte(path: Path) -> bytes:
    """Return the first byte that is not blank, after the byte order mark that Windows puts there."""
    with path.open("rb") as file:
        chunk = file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8)
        while not chunk.strip() and (more := file.read(_CHUNK)):
            chunk = more
    return chunk.strip()[:1]


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the first byte of every line that is not empty, and the byte after its last, however long it is."""
    start = position = 0
    is_blank = True
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for part in _NEWLINES.split(chunk):
                position += len(part)
                is_blank = is_blank and not part.strip()
                if part.endswith(b"\n"):
                    if not is_blank:
                        yield start, position
                    start, is_blank = position, True
    if not is_blank:
        yield start, position


class _Window:
    """The part of a text file that is in memory, and its position in bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.decode = file, codecs.getincrementaldecoder("utf-8")().decode
        self.text, self.position, self.offset, self.ended = "", 0, 0, False

    def read_on(self) -> None:
        """Drop what lies before the position, and read as much as there is now, at least a chunk."""
        chunk = self.file.read(max(_CHUNK, len(self.text) - self.position))
        self.ended = not chunk
        self.text = self.text[self.position :] + self.decode(chunk, self.ended)
        self.position = 0

    def skip_to(self, position: int) -> None:
        """Move on in the text."""
        self.offset += len(self.text[self.position : position].encode())
        self.position = position

    def next_character(self) -> str:
        """Move to the next character that is not blank, and return it; empty at the end."""
        self.skip_to(_after_blanks(self.text, self.position))
        while self.position == len(self.text) and not self.ended:
            self.read_on()
            self.skip_to(_after_blanks(self.text, 0))
        return self.text[self.position : self.position + 1]

    def end_of_item(self) -> int:
        """Return where the JSON value at the position ends.

        Raises:
            ValueError: There is none, or it is larger than `MAX_RECORD`.
        """
        decoder = json.JSONDecoder()
        while True:
            try:
                _, end = decoder.raw_decode(self.text, self.position)
                # A number at the end of the window may go on.
                if self.ended or end < len(self.text):
                    return end
            except json.JSONDecodeError:
                if self.ended:
                    raise
                if len(self.text) - self.position > MAX_RECORD:
                    raise ValueError(f"an item has more than {MAX_RECORD:,} bytes, or does not end") from None
            self.read_on()


def _items(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the first byte of every item of a list, and the byte after its last. Only a part of the file is in memory.

    Raises:
        ValueError: The file is not a JSON list.
    """
    with path.open("rb") as file:
        window = _Window(file)
        mark = window.next_character()
        if mark == "\ufeff":
            window.skip_to(window.position + 1)
            mark = window.next_character()
        # The bracket.
        window.skip_to(window.position + 1)
        mark = window.next_character()
        while mark != "]":
            end = window.end_of_item()
            start = window.offset
            window.skip_to(end)
            yield start, window.offset
            mark = window.next_character()
            if mark == ",":
                window.skip_to(window.position + 1)
                mark = window.next_character()
            elif mark != "]":
                raise json.JSONDecodeError("Expecting ',' delimiter", window.text, window.position)
        window.skip_to(window.position + 1)
        if window.next_character():
            raise json.JSONDecodeError("Extra data", window.text, window.position)


def _after_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position
