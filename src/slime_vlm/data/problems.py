"""What can be wrong with a record, and whether training refuses the record for it."""

from __future__ import annotations

from dataclasses import dataclass

from slime_vlm.errors import DataError


@dataclass(frozen=True)
class Problem:
    """Something wrong with a record.

    Attributes:
        kind: One of `data.check.KINDS`.
        message: What was found.
        refused: Whether training leaves the record out. If not, training reads it, and the problem is a likely mistake.
    """

    kind: str
    message: str
    refused: bool = True


def refusal(kind: str, error: Exception) -> Problem:
    """Return the problem of an error. Its message is one line that any file and terminal can hold."""
    shown = (letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(error))
    return Problem(kind, "".join(shown))


class RecordError(DataError):
    """A record whose keys or turns cannot be read.

    Args:
        message: What was found, and what was expected.
        kind: One of `data.check.KINDS`.
    """

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind
