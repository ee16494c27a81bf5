"""MathVista: extract the result of an answer by rule, and bring it into the form of the right answer."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from slime_vlm.evaluation.metrics.choices import LETTERS

_QUOTED = re.compile(r'the answer is "(.*?)"', re.IGNORECASE | re.DOTALL)
# Only an upper-case letter counts: "the answer is a square" does not state option A.
_STATED = re.compile(r"(?i:answer(?: is|:)\s*)\(?([A-Z])\b")


def extract_by_rule(prediction: str, choices: Sequence[str], answer_type: str) -> str | None:
    """Return what the official script extracts without its language model, or None where it would ask one.

    Args:
        prediction: The answer.
        choices: Option texts. Empty for free answers.
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
    """Return an extraction in the form of the answers of its type, or None if it does not have that form.

    Args:
        extraction: The extracted text.
        choices: Option texts, for `multi_choice`.
        question_type: `multi_choice` or `free_form`.
        answer_type: `integer`, `float`, `text` or `list`.
        precision: Number of decimals of a `float`.
    """
    text = extraction.strip()
    if question_type == "multi_choice" and choices:
        letter = re.search(r"\(([A-Za-z])\)", text)
        # Without parentheses only an upper-case letter counts: a lower-case one may be an option's text.
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
