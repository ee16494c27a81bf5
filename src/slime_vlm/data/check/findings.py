"""The kinds of things that can be wrong with a record."""

from __future__ import annotations

from dataclasses import asdict, dataclass

KINDS = {
    "unreadable": "the record is no JSON, has no turns, or half of a character in a text",
    "missing-image": "there is no such file or member of an archive",
    "damaged-image": "the image is broken off, no image, or cannot be named so",
    "small-image": "a side is below 8 pixels",
    "turn-order": "turns do not go human, gpt, human, gpt, ...",
    "placeholders": "there are not as many <image> as images",
    "empty-question": "a human turn says nothing and shows nothing",
    "empty-answer": "a gpt turn says nothing",
    "special-token": "the text holds a special token of the model",
    "over-long": "more tokens than the limit, images included",
    "duplicate": "an earlier record has the same id and says the same",
    "duplicate-id": "an earlier record has the same id and says something else",
}
"""Kinds by the name that reports and --allow use."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with a record.

    Attributes:
        index: Place of the record in its source, from 0.
        id: Its id; None where it has none, or none could be read.
        kind: One of `KINDS`.
        message: What was found.
    """

    index: int
    id: str | int | None
    kind: str
    message: str

    def as_dict(self) -> dict[str, object]:
        """Plain data for a report."""
        return asdict(self)
