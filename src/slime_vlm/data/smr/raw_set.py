"""What the converters share: the description of a raw set, and functions that assemble records.

The authors have not published the prompts of SMR in a form that could be checked, so the wording here is ours.
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
    """Number of rows of a set that became no record, by reason."""


Convert = Callable[[Path, Skipped], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class RawSet:
    """The description of a raw set.

    Attributes:
        name: Its name.
        folder: Its folder below the root, as in the published image paths.
        licence: Licence of the data.
        origin: Where users download it.
        files: Files and folders that must exist. Of names joined by `|` one is enough.
        count: Expected number of records, or None if nobody states a number.
        count_source: Where the number comes from.
        convert: Converts a folder to records, whose image paths start at the folder.
        leak: Why the set is left out by default. Empty for sets that are not.
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
        """Return the expected files that do not exist."""
        return [names for names in self.files if not any((folder / name).exists() for name in names.split("|"))]


def record(identity: str, image: str | None, question: str, answer: str) -> dict[str, Any]:
    """Return a record of one question and answer, with the image placeholder before the question."""
    asked = f"<image>\n{question.strip()}" if image else question.strip()
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer.strip()}]
    return {"id": identity, **({"image": image} if image else {}), "conversations": turns}


def letter(index: int) -> str:
    """Return the letter of a choice: A, B, C, ..."""
    return chr(ord("A") + index)


def with_choices(question: str, choices: Sequence[Any], advice: str = "") -> str:
    """Return a question with its choices below it, one per line, and advice on how to answer."""
    lines = [question.strip(), *(f"{letter(index)}. {choice}" for index, choice in enumerate(choices))]
    return "\n".join([*lines, advice] if advice else lines)


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: The file is not JSON, or cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); download it again") from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file.

    Raises:
        DataError: A line is not a JSON object.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}: line {number} is not JSON ({error}); download it again") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number} is {row!r:.60}, expected keys and values")
            yield row


def image_exists(folder: Path, image: str, skipped: Skipped) -> bool:
    """Tell whether an image exists, and count those that do not."""
    found = (folder / image).is_file()
    if not found:
        skipped["the image is missing"] += 1
    return found
