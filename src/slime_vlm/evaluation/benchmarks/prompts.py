"""Words that several benchmarks add to a question, and pieces of records in all their spellings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from slime_vlm.evaluation.benchmarks.benchmark import Record
from slime_vlm.evaluation.metrics.choices import LETTERS

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
LETTER_CN = "\n请直接回答选项字母。"


def option_lines(options: Sequence[str]) -> str:
    """`A. text` in a line each."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def letter_options(record: Record) -> dict[str, str]:
    """The options in the columns A, B, C, D (and on): up to the first that is missing."""
    options: dict[str, str] = {}
    for letter in LETTERS:
        if is_missing(record.get(letter)):
            break
        options[letter] = str(record[letter])
    return options


def is_missing(value: Any) -> bool:
    """Whether a cell is empty; tables that went through pandas write that as NaN or the text `nan`."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in {"", "nan", "none"}


def texts(value: Any) -> list[str]:
    """A cell that holds one text or several, as a list; of objects their `answer`."""
    if is_missing(value):
        return []
    if isinstance(value, str | int | float):
        return [str(value)]
    return [str(item["answer"]) if isinstance(item, dict) else str(item) for item in value]


def capitalised(text: str) -> str:
    """The text with its first letter in upper case; the rest stays as it is."""
    return text[:1].upper() + text[1:]
