"""Read one record whole, as training does. The check of data reads records by the same function.

So a record that `slime data check` accepts is read by training, and one that training refuses is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slime_vlm.data.images import MissingImageError, open_stored_image
from slime_vlm.data.problems import Problem, RecordError, refusal
from slime_vlm.data.record import Record, id_of, read_record
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError, InputError
from slime_vlm.processing.chat_styles import PLACEHOLDERS, PlaceholderError, Turn, turns_from_record

OpenImage = Callable[[Any, Path], Any]
Encode = Callable[[list[Turn], list[Any]], None]


@dataclass
class Reading:
    """A record as training reads it.

    Attributes:
        id: Its id, also if the rest cannot be read; None without one.
        record: The record; None if it cannot be read.
        images: Its opened images. Images that cannot be opened are left out.
        turns: Its turns. Empty if training refuses them.
        problems: Everything that is wrong with it.
    """

    id: str | int | None = None
    record: Record | None = None
    images: list[Any] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def refusal(self) -> Problem | None:
        """The first problem for which training refuses the record; None if training reads it."""
        return next((problem for problem in self.problems if problem.refused), None)


def read_whole(
    source: Source, index: int, open_image: OpenImage = open_stored_image, encode: Encode | None = None
) -> Reading:
    """Read a record, open its images and read its turns.

    Args:
        source: The records.
        index: Index of the record.
        open_image: Opens a stored image, given its value in the record and the folder that paths start from.
        encode: Encodes the turns and opened images of a record that is not refused so far.
    """
    reading = Reading()
    raw = None
    try:
        raw = source.read(index)
        reading.record = record = read_record(raw)
    except DataError as error:
        kind = error.kind if isinstance(error, RecordError) else "unreadable"
        reading.problems.append(refusal(kind, error))
        return reading
    finally:
        reading.id = id_of(raw)
    for value in record.images:
        try:
            reading.images.append(open_image(value, source.images))
        except MissingImageError as error:
            reading.problems.append(refusal("missing-image", error))
        except DataError as error:
            reading.problems.append(refusal("damaged-image", error))
    reading.turns, problems = read_turns_of(record)
    reading.problems += problems
    if encode is not None and reading.refusal is None:
        try:
            encode(reading.turns, reading.images)
        except (DataError, InputError) as error:
            reading.problems.append(refusal("chat-template", error))
    return reading


def read_turns_of(record: Record) -> tuple[list[Turn], list[Problem]]:
    """Return the turns that training learns from, and what is wrong with them. Refused turns are empty."""
    try:
        turns = turns_from_record(record.conversations, len(record.images))
    except PlaceholderError as error:
        return [], [refusal("placeholders", error)]
    except DataError as error:
        return [], [refusal("turn-order", error)]
    if not any(turn.role == "assistant" for turn in turns):
        message = "there is no answer after a question, expected turns of human and gpt, human first"
        return [], [Problem("turn-order", message)]
    return turns, _likely_mistakes(record, turns)


def _likely_mistakes(record: Record, turns: list[Turn]) -> list[Problem]:
    """Return what training reads, though it is probably not what was meant."""
    problems = []
    for index, turn in enumerate(record.conversations):
        if turn["from"] != "system" and not turn["value"].strip():
            kind = "empty-question" if turn["from"] == "human" else "empty-answer"
            problems.append(Problem(kind, f"turn {index} is empty", refused=False))
    first = next(turn["from"] for turn in record.conversations if turn["from"] != "system")
    if first == "gpt":
        problems.append(Problem("turn-order", "an answer comes before the first question", refused=False))
    if turns[-1].role == "user":
        problems.append(Problem("turn-order", "the last question has no answer", refused=False))
    count = sum(len(PLACEHOLDERS.findall(turn["value"])) for turn in record.conversations)
    if count != len(record.images):
        message = f"{count} image placeholders for {len(record.images)} image(s)"
        problems.append(Problem("placeholders", message, refused=False))
    return problems
