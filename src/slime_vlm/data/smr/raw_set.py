"""What the converters share: how a raw set is described, and how a record is put together.

The prompts of the authors' SMR are not published in a form that could be checked, so the wording here is ours.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slime_vlm.errors import DataError

SHORT_ANSWER = "Answer with a single word or phrase."
LETTER_ANSWER = "Answer with the letter of the right choice."


class Skipped(Counter[str]):
    """How many rows of a set became no record, by reason."""


Convert = Callable[[Path, Skipped], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class RawSet:
    """A raw set.

    Attributes:
        name: Its name.
        folder: Its folder below the root, as the published image paths have it.
        licence: Licence of the data.
        origin: Where users fetch it.
        files: What has to be there; of names joined by `|` one is enough.
        count: Records that are expected, None where nobody states a number.
        count_source: Where the number comes from.
        convert: Folder -> records, whose image paths start at the folder.
        leak: Why the set is left out unless it is asked for; empty for none.
    """

    name: str
    folder: str
    licence: str
    origin: str
    files: Sequence[str]
    count: int | None
    count_source: str
    convert: Convert
    leak: str = ""

    def missing(self, folder: Path) -> list[str]:
        """What is not there of the expected files."""
        return [names for names in self.files if not any((folder / name).exists() for name in names.split("|"))]


def record(identity: str, image: str | None, question: str, answer: str) -> dict[str, Any]:
    """One round, with the placeholder before the question."""
    asked = f"<image>\n{question.strip()}" if image else question.strip()
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer.strip()}]
    return {"id": identity, **({"image": image} if image else {}), "conversations": turns}


def letter(index: int) -> str:
    """A, B, C, ..."""
    return chr(ord("A") + index)


def with_choices(question: str, choices: Sequence[Any], advice: str = "") -> str:
    """A question with its choices below it, one a line."""
    lines = [question.strip(), *(f"{letter(index)}. {choice}" for index, choice in enumerate(choices))]
    return "\n".join([*lines, advice] if advice else lines)


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: It is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON ({error}); fetch it again") from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Parse a JSONL file.

    Raises:
        DataError: A line is no JSON object.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number} is not JSON ({error}); fetch it again") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number} is {row!r:.60}, expected keys and values")
            yield row


def there(folder: Path, image: str, skipped: Skipped) -> bool:
    """Whether an image is there; counts those that are not."""
    found = (folder / image).is_file()
    if not found:
        skipped["the image is missing"] += 1
    return found
