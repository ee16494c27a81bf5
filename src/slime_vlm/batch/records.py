"""What the records of a job ask, and which records there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from slime_vlm.data.archives import ARCHIVES
from slime_vlm.data.images import open_stored_image, stored_image_file
from slime_vlm.data.problems import RecordError, refusal
from slime_vlm.data.record import id_of, read_record
from slime_vlm.data.record_formats import brief
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError, SlimeError, one_line
from slime_vlm.media import OpenedInput, is_address
from slime_vlm.processing.chat_styles import turns_from_record

Key = str | int
"""How the files of a job name a record: its id, or its index for one without."""


@dataclass(frozen=True)
class Asked:
    """What a record asks.

    Attributes:
        messages: Messages for the chat template up to the last question, images as blocks without source.
        images: The images as they are stored, in the order of their blocks.
    """

    messages: list[dict[str, Any]]
    images: list[Any]


@dataclass
class Listing:
    """The records of a source.

    Attributes:
        keys: Key of every record.
        index_of: Index of the first record with a key.
        digest: Digest of all records in their order. Files of images are not part of it.
    """

    keys: list[Key] = field(default_factory=list)
    index_of: dict[Key, int] = field(default_factory=dict)
    digest: str = ""


def list_records(source: Source) -> Listing:
    """Read all records once, for their keys and their digest. Damaged ones stand for themselves."""
    found, digest = Listing(), blake2b(digest_size=16)
    for index, text in enumerate(source.texts()):
        digest.update(blake2b(text, digest_size=16).digest())
        try:
            identity = id_of(json.loads(text))
        except (ValueError, RecursionError):
            identity = None
        key = index if identity is None else identity
        found.keys.append(key)
        found.index_of.setdefault(key, index)
    found.digest = digest.hexdigest()
    return found


def read_asked(source: Source, index: int) -> Asked:
    """Read what a record asks: its `question`, or the turns of a training record up to the last question.

    Raises:
        DataError: The record cannot be read, or asks nothing.
    """
    record = read_record(_with_turns(source.read(index)))
    turns = turns_from_record(record.conversations, len(record.images))
    last = max(number for number, turn in enumerate(turns) if turn.role == "user")
    if not turns[last].text.strip():
        raise DataError("the question is empty, expected some text")
    messages: list[dict[str, Any]] = []
    for turn in turns[: last + 1]:
        blocks = [*[{"type": "image"}] * turn.images, {"type": "text", "text": turn.text}]
        messages.append({"role": turn.role, "content": blocks if turn.role == "user" else turn.text})
    return Asked(messages, record.images)


def reason_of(error: Exception) -> str:
    """Return why a record cannot be answered, in one line."""
    if not isinstance(error, SlimeError):
        # Its kind tells a fault of a library, or of this package, from a bad record.
        error = DataError(f"{type(error).__name__}: {one_line(error)}")
    return refusal("record", error).message


def _with_turns(raw: Any) -> Any:
    """Write the question of a record as turns, which the formats of training records have."""
    if not isinstance(raw, Mapping) or raw.get("question") is None:
        return raw
    question = raw["question"]
    if not isinstance(question, str):
        raise RecordError(f"'question' is {brief(question)}, expected text")
    kept = {key: raw[key] for key in ("id", "image", "images", "video", "videos") if key in raw}
    return {**kept, "messages": [{"role": "user", "content": question}]}


def open_image_of(value: Any, root: Path, open_image: Callable[[str], OpenedInput]) -> OpenedInput:
    """Open an image of a record: what training records hold, or else whatever `open_image` opens.

    Args:
        value: The image as it is stored. A path is relative to `root` and must not lead out of it.
        root: Folder or archive.
        open_image: Opens a file, a page such as `scan.pdf#3`, or an address if addresses are allowed.

    Raises:
        DataError: The value names no image, or one that cannot be read in an archive or the record.
        MediaError: A file cannot be opened.
    """
    if isinstance(value, str) and is_address(value):
        return open_image(value)
    file = stored_image_file(value, root)
    # Members of archives, and what is in the record itself.
    if file is None or file.suffix in ARCHIVES:
        return open_stored_image(value, root)
    return open_image(str(file))
