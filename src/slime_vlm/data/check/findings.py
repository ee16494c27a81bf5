"""The kinds of findings: what can be wrong with a record."""

from __future__ import annotations

from dataclasses import asdict, dataclass

KINDS = {
    "unreadable": "the record is not JSON, has no turns, or holds half of a character",
    "missing-image": "the image file or archive member does not exist",
    "damaged-image": "the image is truncated, not an image, an address, or outside the image folder",
    "small-image": "a side is below 8 pixels",
    "turn-order": "turns do not go human, gpt, human, gpt, ...",
    "placeholders": "the number of <image> differs from the number of images",
    "chat-template": "the chat template of the model does not take the turns",
    "empty-question": "a human turn has no text and no image",
    "empty-answer": "a gpt turn has no text",
    "special-token": "the text holds a special token of the model",
    "over-long": "there are more tokens than the limit, images included",
    "duplicate": "an earlier record has the same id and the same content",
    "duplicate-id": "an earlier record has the same id and other content",
}
"""The kinds, by the name that reports and --allow use."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with a record.

    Attributes:
        index: Index of the record in its source, from 0.
        id: Its id, or None if it has none or cannot be read.
        kind: One of `KINDS`.
        message: What was found.
        refused: Whether training leaves the record out. If not, training reads it, and the finding is a likely mistake.
    """

    index: int
    id: str | int | None
    kind: str
    message: str
    refused: bool = False

    def as_dict(self) -> dict[str, object]:
        """Return the finding as plain data."""
        return asdict(self)
