"""A record in any kind of source: an id, images that are not opened yet, and the turns of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slime_vlm.data.problems import RecordError
from slime_vlm.data.record_formats import OTHER_MEDIA, brief, format_of, stored_image, turns_and_images

MAX_DEPTH = 64
"""Levels of lists and mappings that a record may have."""


@dataclass(frozen=True)
class Record:
    """One conversation.

    Attributes:
        id: Its id, or None.
        images: Its images as they are stored, see `images.open_stored_image`.
        conversations: Turns `{"from", "value"}`. `from` is human, gpt or system.
        rest: All other keys.
    """

    id: str | int | None
    images: list[Any]
    conversations: list[dict[str, str]]
    rest: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the record in the published form. `image` is absent without images, and a list only for several."""
        images: dict[str, Any] = {"image": self.images[0] if len(self.images) == 1 else self.images}
        identity = {} if self.id is None else {"id": self.id}
        return {**identity, **(images if self.images else {}), "conversations": self.conversations, **self.rest}


def read_record(raw: Any) -> Record:
    """Read a record in any format of `record_formats.FORMATS`.

    `image` (or `images`) is one image, a list of them, or absent.

    Raises:
        RecordError: The value has none of these forms. The message does not name the record.
    """
    if not isinstance(raw, Mapping):
        raise RecordError(f"{brief(raw)} is not a record, expected keys and values with 'conversations'")
    present = {key: value for key, value in raw.items() if value is not None}
    form = format_of(present)
    if form is None:
        raise RecordError("the record has no 'conversations', 'messages', 'query' or 'instruction', expected one")
    identity = id_of(raw)
    if identity is None and "id" in present:
        raise RecordError(f"'id' is {brief(present['id'])}, expected text or a whole number")
    _refuse_other_media(present)
    if present.get("image") and present.get("images"):
        raise RecordError("the record has both 'image' and 'images', expected one; put all images into 'images'")
    stored = present.get("image", present.get("images", []))
    listed = [stored_image(value) for value in (stored if isinstance(stored, list) else [stored])]
    turns, images = turns_and_images(form, present, listed)
    for index, turn in enumerate(turns):
        _check_text(f"turn {index}", turn["value"])
    _check_values(raw)
    rest = {key: value for key, value in raw.items() if key not in ("id", "image", "images", *form.keys)}
    return Record(identity, images, turns, rest)


def _refuse_other_media(present: Mapping[str, Any]) -> None:
    """Refuse records about videos and sound, which would be read as text alone."""
    for key in OTHER_MEDIA:
        if present.get(key):
            raise RecordError(f"the record has '{key}', expected images and text; give frames as 'images'")


def id_of(raw: Any) -> str | int | None:
    """Return the id of a record that may be damaged, or None."""
    identity = raw.get("id") if isinstance(raw, Mapping) else None
    return identity if isinstance(identity, int) or (isinstance(identity, str) and _half_of(identity) is None) else None


def _check_text(where: str, text: str) -> None:
    """Refuse half of a surrogate pair. JSON can express it, but tokenizers and files cannot hold it."""
    half = _half_of(text)
    if half is not None:
        raise RecordError(f"{where} holds {half!r}, half of a character: correct the text")


def _half_of(text: str) -> str | None:
    """Return the first half of a surrogate pair in a text, or None."""
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return text[error.start]
    return None


def _check_values(raw: Any) -> None:
    """Refuse what no file, console or tokenizer can hold, at any depth of a record."""
    level = [raw]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text("the record", value)
            elif isinstance(value, Mapping):
                below += [*value, *value.values()]
            elif isinstance(value, list):
                below += value
        level = below
    if level:
        raise RecordError(f"the record is nested more than {MAX_DEPTH} levels deep")
