"""Instructions that several benchmarks add to a question, and helpers for the cells of records."""

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
    """Return the options as lines of the form `A. text`."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def letter_options(record: Record) -> dict[str, str]:
    """Return the options of the columns A, B, C, … up to the first missing one, by letter."""
    options: dict[str, str] = {}
    for letter in LETTERS:
        if is_missing(record.get(letter)):
            break
        options[letter] = str(record[letter])
    return options


def is_missing(value: Any) -> bool:
    """Return whether a cell is empty, or holds NaN or the text `nan` or `none` in any case, as pandas writes them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.lower() in {"", "nan", "none"}


def texts(value: Any) -> list[str]:
    """Return the texts of a cell that holds one or several. Objects stand for their `answer`."""
    if is_missing(value):
        return []
    if isinstance(value, str | int | float):
        return [str(value)]
    return [str(item["answer"]) if isinstance(item, dict) else str(item) for item in value]


def capitalised(text: str) -> str:
    """Return the text with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]
