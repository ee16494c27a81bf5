"""A record in any kind of source: an id, images that are not opened yet, and the turns of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slime_vlm.errors import DataError

FIELDS = ("id", "image", "images", "conversations", "messages")
"""Keys that are interpreted. All others are kept in `Record.rest`."""


@dataclass(frozen=True)
class Record:
    """One conversation.

    Attributes:
        id: Its id, or None.
        images: Its images as they are stored, see `images.open_stored_image`.
        conversations: Turns, `{"from", "value"}` or `{"role", "content"}`.
        rest: All other keys.
    """

    id: str | int | None
    images: list[Any]
    conversations: list[dict[str, Any]]
    rest: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the record in the published form. `image` is absent without images, and a list only for several."""
        images: dict[str, Any] = {"image": self.images[0] if len(self.images) == 1 else self.images}
        identity = {} if self.id is None else {"id": self.id}
        return {**identity, **(images if self.images else {}), "conversations": self.conversations, **self.rest}


def read_record(raw: Any) -> Record:
    """Read a record in the published form.

    `image` (or `images`) is one image, a list of them, or absent. `conversations` may be called `messages`.

    Raises:
        DataError: The value does not have this form. The message does not name the record.
    """
    if not isinstance(raw, Mapping):
        raise DataError(f"{raw!r:.80} is not a record, expected keys and values with 'conversations'")
    turns = raw.get("conversations", raw.get("messages"))
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError("the record has no 'conversations', expected a list of turns")
    for index, turn in enumerate(turns):
        _check_text(index, turn.get("value", turn.get("content")))
    stored = raw.get("image") if raw.get("image") is not None else raw.get("images")
    images = [] if stored is None else stored if isinstance(stored, list) else [stored]
    identity = raw.get("id")
    if not isinstance(identity, str | int | None):
        raise DataError(f"'id' is {identity!r:.80}, expected text or a whole number")
    rest = {key: value for key, value in raw.items() if key not in FIELDS}
    return Record(identity, list(images), [dict(turn) for turn in turns], rest)


def _check_text(index: int, value: Any) -> None:
    """Refuse half of a surrogate pair. JSON can express it, but tokenizers and files cannot hold it."""
    try:
        if isinstance(value, str):
            value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise DataError(f"turn {index} holds {half!r}, half of a character: correct the text") from None
