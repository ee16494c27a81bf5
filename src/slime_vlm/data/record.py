"""What a record is, whatever it is stored in: an id, images that are not opened yet, and the turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slime_vlm.errors import DataError

FIELDS = ("id", "image", "images", "conversations", "messages")
"""Keys that are read; all others are carried along."""


@dataclass(frozen=True)
class Record:
    """One conversation.

    Attributes:
        id: Its id, None where it has none.
        images: Its images as they are stored, see `images.open_stored_image`.
        conversations: Turns, `{"from", "value"}` or `{"role", "content"}`.
        rest: What else the record says.
    """

    id: str | int | None
    images: list[Any]
    conversations: list[dict[str, Any]]
    rest: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The record in the published form: `image` is left out for text alone, and a list only where it has to be."""
        images: dict[str, Any] = {"image": self.images[0] if len(self.images) == 1 else self.images}
        identity = {} if self.id is None else {"id": self.id}
        return {**identity, **(images if self.images else {}), "conversations": self.conversations, **self.rest}


def read_record(raw: Any) -> Record:
    """Read a record in the published form.

    `image` (or `images`) is one image or a list of them, or left out; `conversations` may be called `messages`.

    Raises:
        DataError: It is no such record. The message does not name it.
    """
    if not isinstance(raw, Mapping):
        raise DataError(f"{raw!r:.80} is no record, expected keys and values with 'conversations'")
    turns = raw.get("conversations", raw.get("messages"))
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError("the record has no 'conversations', expected a list of turns")
    for place, turn in enumerate(turns):
        _check_text(place, turn.get("value", turn.get("content")))
    stored = raw.get("image") if raw.get("image") is not None else raw.get("images")
    images = [] if stored is None else stored if isinstance(stored, list) else [stored]
    identity = raw.get("id")
    if not isinstance(identity, str | int | None):
        raise DataError(f"'id' is {identity!r:.80}, expected text or a whole number")
    rest = {key: value for key, value in raw.items() if key not in FIELDS}
    return Record(identity, list(images), [dict(turn) for turn in turns], rest)


def _check_text(place: int, value: Any) -> None:
    """Half of a character pair, which JSON can spell, is no text to a tokenizer or a file."""
    try:
        if isinstance(value, str):
            value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise DataError(f"turn {place} holds {half!r}, half of a character: mend the text") from None
