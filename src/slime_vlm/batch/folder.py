"""The folder of a job, which can be killed at any moment.

run.json       the records and settings that the answers depend on
answers.jsonl  one answer a line, appended as it is given; in the order of the records once all are there
errors.jsonl   one record a line that could not be answered; made anew by every command, which tries them again
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from slime_vlm.batch.records import Listing
from slime_vlm.errors import ConfigError

RUN, ANSWERS, ERRORS, LOCK = "run.json", "answers.jsonl", "errors.jsonl", "answers.lock"


class JobFolder:
    """Answers and errors of a job. Open it under `training.run_lock.locked`.

    Args:
        out: The folder, which exists.
        records: The records of the job.
        settings: What else the answers depend on, by name.

    Raises:
        ConfigError: The folder has answers of another job, or answers that cannot be read.
    """

    def __init__(self, out: Path, records: Listing, settings: Mapping[str, Any]) -> None:
        self.out, self._records = out, records
        self.answers, self.errors = out / ANSWERS, out / ERRORS
        self.num_errors = 0
        _drop_torn_line(self.answers)
        is_resumed = self.answers.is_file() and self.answers.stat().st_size > 0
        # As another process would read it.
        wanted = json.loads(
            json.dumps({"records": {"count": len(records.keys), "digest": records.digest}, "settings": settings})
        )
        if is_resumed:
            _check(out, wanted)
        else:
            _write_whole(out / RUN, json.dumps(wanted, indent=1).encode() + b"\n")
        self._spans = self._read_answers() if is_resumed else {}
        self.errors.unlink(missing_ok=True)
        self._file: BinaryIO | None = None

    @property
    def num_answers(self) -> int:
        """Number of answered records."""
        return len(self._spans)

    def has(self, index: int) -> bool:
        """Whether a record is answered."""
        return index in self._spans

    def add_answer(self, index: int, fields: Mapping[str, Any]) -> None:
        """Append an answer, in one write."""
        if self._file is None:
            # Unbuffered: what is written survives a kill, and a line is cut at its end only.
            self._file = self.answers.open("ab", buffering=0)
        start = self._file.seek(0, 2)
        self._spans[index] = (start, start + _append(self._file, {"id": self._records.keys[index], **fields}))

    def add_error(self, index: int, message: str) -> None:
        """Append a record that could not be answered."""
        with self.errors.open("ab", buffering=0) as file:
            _append(file, {"id": self._records.keys[index], "record": index, "error": message})
        self.num_errors += 1

    def finish(self) -> None:
        """Put the answers into the order of the records, unless they are. The file is replaced whole."""
        self.close()
        if list(self._spans) == sorted(self._spans):
            return
        part = self.answers.with_name(f"{ANSWERS}.part")
        with self.answers.open("rb") as given, part.open("wb") as ordered:
            for index in sorted(self._spans):
                start, end = self._spans[index]
                given.seek(start)
                ordered.write(given.read(end - start))
        part.replace(self.answers)

    def close(self) -> None:
        """Close the file of answers."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_answers(self) -> dict[int, tuple[int, int]]:
        """Return where the answer of each record lies in the file, in the order of the file.

        Raises:
            ConfigError: A line is not the answer of a record, or a record has two.
        """
        spans: dict[int, tuple[int, int]] = {}
        end = 0
        with self.answers.open("rb") as file:
            for number, line in enumerate(file, start=1):
                start, end = end, end + len(line)
                try:
                    index = self._records.index_of[json.loads(line)["id"]]
                except (ValueError, LookupError, TypeError):
                    raise ConfigError(
                        f"{self.answers}: line {number} is not an answer to one of these records; repair it, or use "
                        "another --out"
                    ) from None
                if index in spans:
                    raise ConfigError(
                        f"{self.answers}: line {number} answers record {self._records.keys[index]!r} a second time; "
                        "remove it, or use another --out"
                    )
                spans[index] = (start, end)
        return spans


def _check(out: Path, wanted: dict[str, Any]) -> None:
    """Check that a folder with answers is that of the same job."""
    try:
        known = json.loads((out / RUN).read_text(encoding="utf-8"))
        records, settings = known["records"], known["settings"]
        changes = _changes_of_records(records, wanted["records"]) + [
            f"{name} was {settings.get(name)} and is {wanted['settings'].get(name)}"
            for name in {**settings, **wanted["settings"]}
            if settings.get(name) != wanted["settings"].get(name)
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ConfigError(f"{out} has {ANSWERS} and no {RUN} that fits; use another --out") from None
    if changes:
        raise ConfigError(f"{out} has the answers of another job: {'; '.join(changes)}; use another --out")


def _changes_of_records(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if before["count"] != now["count"]:
        return [f"there were {before['count']:,} records and are {now['count']:,}"]
    return [] if before["digest"] == now["digest"] else ["the records have another content or order"]


def _append(file: BinaryIO, fields: Mapping[str, Any]) -> int:
    """Write a line to an unbuffered file, and return its length in bytes.

    Raises:
        OSError: The disk is full. A part of the line may be there, and the next command cuts it off.
    """
    line = (json.dumps(fields, ensure_ascii=False) + "\n").encode("utf-8", errors="replace")
    if file.write(line) < len(line):
        raise OSError(errno.ENOSPC, "the disk is full", file.name)
    return len(line)


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill has left without its end."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        kept, size = end, 1 << 16
        while kept:
            start = max(0, kept - size)
            file.seek(start)
            found = file.read(kept - start).rfind(b"\n")
            kept = start + found + 1
            if found >= 0:
                break
        if kept < end:
            file.truncate(kept)
