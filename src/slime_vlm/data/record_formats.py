"""The formats of records, and their conversion into the published one: images, and turns that mention them.

To add a format, write a function that returns the `_TurnPieces` turns of a record, and add it to `FORMATS`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slime_vlm.data.problems import RecordError
from slime_vlm.processing.chat_styles import IMAGE_PLACEHOLDER, PLACEHOLDERS, role_of

SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}
"""Names of the roles in the published form."""

# Keys that hold an image or name it, in the order in which they are tried.
_IMAGE_KEYS = ("bytes", "path", "image", "image_url", "url", "base64")
_MAX_WRAPPED = 4
_IMAGE_TYPES = ("image", "image_url")

OTHER_MEDIA = ("video", "videos", "audio", "audios")
"""Keys of what no model here can see. A record that has them is refused."""


@dataclass(frozen=True)
class _ImageBlock:
    """An image between pieces of text. None: the next image that the record lists outside of its turns."""

    image: Any


@dataclass(frozen=True)
class _TurnPieces:
    """One turn: its role, and its text in pieces, with images between them."""

    role: str
    pieces: tuple[str | _ImageBlock, ...]


@dataclass(frozen=True)
class RecordFormat:
    """A way to write a conversation.

    Attributes:
        marks: A record has this format if it has one of these keys.
        other_keys: Further keys that are read.
        turns: Returns the turns of a record.
        exact: Whether every listed image needs its own placeholder. Images that no turn mentions then go before the
            first question. False for the published form, whose rule for placeholders is `turns_from_record`.
    """

    marks: tuple[str, ...]
    other_keys: tuple[str, ...]
    turns: Callable[[Mapping[str, Any]], list[_TurnPieces]]
    exact: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that the format reads."""
        return (*self.marks, *self.other_keys)


def format_of(keys: Collection[str]) -> RecordFormat | None:
    """Return the format of a record or table with these keys; None if there is none."""
    return next((form for form in FORMATS if set(form.marks) & set(keys)), None)


def columns_of(keys: Collection[str]) -> list[str]:
    """Return those columns of a table that records are read from; empty if it holds no records.

    Other media are among them: a record that has them has to be refused, not read as text alone.
    """
    form = format_of(keys)
    return [] if form is None else [key for key in ("id", "image", "images", *form.keys, *OTHER_MEDIA) if key in keys]


def turns_and_images(
    form: RecordFormat, raw: Mapping[str, Any], listed: list[Any]
) -> tuple[list[dict[str, str]], list[Any]]:
    """Convert a record into the published form.

    Args:
        form: Its format.
        raw: The record. No value is None.
        listed: The images that it lists outside of its turns.

    Returns:
        Turns `{"from", "value"}` with one placeholder for each image, and the images in the order of the placeholders.

    Raises:
        RecordError: The record does not have this form.
    """
    said = form.turns(raw)
    texts: list[str] = []
    images: list[Any] = []
    waiting = iter(listed)
    blocks = False
    for turn in said:
        text, own = _joined(turn.pieces)
        blocks = blocks or bool(own)
        texts.append(text)
        for number in range(len(PLACEHOLDERS.findall(text))):
            image = own.get(number)
            if image is None:
                image = next(waiting, None)
            if image is not None:
                images.append(image)
    left = list(waiting)
    mentioned = sum(len(PLACEHOLDERS.findall(text)) for text in texts)
    if not blocks and not form.exact:
        images = listed
    elif left and not mentioned:
        first = next((index for index, turn in enumerate(said) if turn.role == "user"), 0)
        texts[first] = "\n".join([*[IMAGE_PLACEHOLDER] * len(left), texts[first]]).strip()
        images = left
    elif left or len(images) != mentioned:
        raise RecordError(f"the turns mention {mentioned} image(s), found {len(images) + len(left)}", "placeholders")
    turns = [{"from": SPEAKERS[turn.role], "value": text} for turn, text in zip(said, texts, strict=True)]
    return turns, images


def stored_image(value: Any) -> Any:
    """Return what holds an image, the bytes or the text that names it, without the mappings around it."""
    for _ in range(_MAX_WRAPPED):
        if not isinstance(value, Mapping):
            break
        value = next((value[key] for key in _IMAGE_KEYS if value.get(key) is not None), None)
    return value.removeprefix("file://") if isinstance(value, str) else value


def brief(value: Any) -> str:
    """Return a short form of any value for a message, however long or deep it is."""
    return f"{reprlib.repr(value):.80}"


def _joined(pieces: tuple[str | _ImageBlock, ...]) -> tuple[str, dict[int, Any]]:
    """Return the text of a turn, and its own images by the number of their placeholder."""
    text, own = "", {}
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        own[len(PLACEHOLDERS.findall(text))] = piece.image
        # A backslash before the placeholder would make it a word.
        text += ("\n" if text.endswith("\\") else "") + IMAGE_PLACEHOLDER
    return text, own


def _listed_turns(key: str) -> Callable[[Mapping[str, Any]], list[_TurnPieces]]:
    """Return a reader of a list of turns with `from` and `value`, or `role` and `content`, and a text `system`."""

    def read(raw: Mapping[str, Any]) -> list[_TurnPieces]:
        turns = raw[key]
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
            raise RecordError(f"the record has no '{key}': found {brief(turns)}, expected a list of turns")
        listed = [_listed_turn(index, turn) for index, turn in enumerate(turns)]
        system = _text(raw, "system", "")
        if system and any(turn.role == "system" for turn in listed):
            raise RecordError(f"the record has 'system' and a system turn in '{key}', expected one", "turn-order")
        return [*([_TurnPieces("system", (system,))] if system else []), *listed]

    return read


def _listed_turn(index: int, turn: Mapping[str, Any]) -> _TurnPieces:
    role = role_of(turn)
    content = next((turn[key] for key in ("value", "content") if turn.get(key) is not None), None)
    if role is None or not isinstance(content, str | list):
        raise RecordError(
            f"turn {index} is {brief(dict(turn))}, expected 'from' (human or gpt) and 'value' (text), or 'role' and "
            "'content'",
            "turn-order",
        )
    pieces = (content,) if isinstance(content, str) else tuple(_pieces(index, content))
    return _TurnPieces(role, pieces)


def _pieces(index: int, blocks: list[Any]) -> Iterator[str | _ImageBlock]:
    for block in blocks:
        if isinstance(block, str):
            yield block
            continue
        found = {key: value for key, value in block.items() if value is not None} if isinstance(block, Mapping) else {}
        kind = found.get("type", "text" if "text" in found else "image" if set(found) & {*_IMAGE_KEYS} else None)
        if kind == "text" and isinstance(found.get("text"), str):
            yield found["text"]
        elif kind in _IMAGE_TYPES:
            yield _ImageBlock(stored_image(found))
        else:
            raise RecordError(
                f"turn {index} has the content block {brief(block)}, expected {{'type': 'text', 'text': ...}} or "
                "{'type': 'image', 'image': ...}",
                "turn-order",
            )


def _query_and_response(raw: Mapping[str, Any]) -> list[_TurnPieces]:
    return _rounds(raw, _text(raw, "query"), _text(raw, "response"))


def _instruction_and_output(raw: Mapping[str, Any]) -> list[_TurnPieces]:
    asked = [_text(raw, "instruction"), _text(raw, "input", "")]
    return _rounds(raw, "\n".join(filter(None, asked)), _text(raw, "output"))


def _rounds(raw: Mapping[str, Any], question: str, answer: str) -> list[_TurnPieces]:
    """Return the turns of a last round, with the system text and the earlier rounds that the record names."""
    system, history = _text(raw, "system", ""), raw.get("history", [])
    if not isinstance(history, list):
        raise RecordError(f"'history' is {brief(history)}, expected a list of pairs [question, answer]")
    turns = [_TurnPieces("system", (system,))] if system else []
    for index, pair in enumerate([*history, [question, answer]]):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RecordError(f"round {index} of 'history' is {brief(pair)}, expected [question, answer]")
        turns += [_TurnPieces("user", (pair[0],)), _TurnPieces("assistant", (pair[1],))]
    return turns


def _text(raw: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = raw.get(key, default)
    if not isinstance(value, str):
        raise RecordError(f"'{key}' is {brief(value)}, expected text" if key in raw else f"the record has no '{key}'")
    return value


FORMATS = (
    # LLaVA and ShareGPT, the published form.
    RecordFormat(("conversations",), ("system",), _listed_turns("conversations"), exact=False),
    # Chat messages of OpenAI, transformers and TRL.
    RecordFormat(("messages",), ("system",), _listed_turns("messages")),
    # ms-swift.
    RecordFormat(("query", "response"), ("history", "system"), _query_and_response),
    # Alpaca.
    RecordFormat(("instruction", "output"), ("input", "history", "system"), _instruction_and_output),
)
"""All formats. The first whose marks a record has reads it."""
