"""MathVista: what was extracted, brought into the form of the answer, must equal it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from slime_vlm.evaluation.metrics.choices import LETTERS

_QUOTED = re.compile(r'the answer is "(.*?)"', re.IGNORECASE | re.DOTALL)
# The letter in upper case alone: "the answer is a square" states no option A.
_STATED = re.compile(r"(?i:answer(?: is|:)\s*)\(?([A-Z])\b")


def extract_by_rule(prediction: str, choices: Sequence[str], answer_type: str) -> str | None:
    """What the official script extracts without its language model; None where it would ask one.

    Args:
        prediction: the answer.
        choices: option texts; empty for free answers.
        answer_type: `integer`, `float`, `text` or `list`.
    """
    text = prediction.strip()
    if text in choices:
        return text
    if answer_type in {"integer", "float"} and _number(text) is not None:
        return text
    quoted = _QUOTED.search(text)
    if quoted:
        return quoted[1]
    if choices:
        stated = re.fullmatch(r"\(?([A-Z])\)?\.?", text) or _STATED.search(text)
        if stated:
            return stated[1]
    return None


def normalise_extraction(
    extraction: str, choices: Sequence[str], question_type: str, answer_type: str, precision: float | None
) -> str | None:
    """An extraction in the form of the answers of its type; None where it has no such form.

    Args:
        extraction: what was extracted.
        choices: option texts, for `multi_choice`.
        question_type: `multi_choice` or `free_form`.
        answer_type: `integer`, `float`, `text` or `list`.
        precision: decimals of a `float`.
    """
    text = extraction.strip()
    if question_type == "multi_choice" and choices:
        letter = re.search(r"\(([A-Za-z])\)", text)
        # A letter without parentheses is one in upper case alone: in lower case it may be an option's text.
        text = letter[1].upper() if letter else text
        if len(text) == 1 and text in LETTERS[: len(choices)]:
            return choices[LETTERS.index(text)]
        return min(choices, key=lambda choice: Levenshtein.distance(text, choice))
    if answer_type == "integer":
        number = _number(text)
        return None if number is None else str(int(number))
    if answer_type == "float":
        number = _number(text)
        return None if number is None else str(round(number, int(precision or 0)))
    return text


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
