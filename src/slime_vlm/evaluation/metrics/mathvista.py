"""MathVista: extract the result of an answer by rule, and bring it into the form of the right answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from slime_vlm.evaluation.metrics.choices import LETTERS

_QUOTED = re.compile(r'the answer is "(.*?)"', re.IGNORECASE | re.DOTALL)
# Only an upper-case letter counts: "the answer is a square" does not state option A.
_STATED = re.compile(r"(?i:answer(?: is|:)\s*)\(?([A-Z])\b")


def extract_as_it_is(prediction: str, choices: Sequence[str], answer_type: str) -> str | None:
    """Return the answer if it is an extraction already, or None where the official script asks a language model.

    An empty answer is its own extraction. So is the text of a choice, and a number of the right type.

    Args:
        prediction: The answer.
        choices: Option texts. Empty for free answers.
        answer_type: `integer`, `float`, `text` or `list`.
    """
    if not prediction or prediction in choices:
        return prediction
    try:
        if answer_type == "integer":
            return str(int(prediction))
        if answer_type == "float":
            return str(float(prediction))
    except ValueError:
        pass
    return None


def extract_by_rule(prediction: str, choices: Sequence[str], answer_type: str) -> str | None:
    """Return the extraction of an answer without a language model, or None. See `extract_as_it_is`.

    Deviation: besides what the official script takes as it is, a quoted answer and a stated letter are read.
    """
    text = prediction.strip()
    found = extract_as_it_is(text, choices, answer_type)
    if found is not None:
        return found
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

    A text that is no letter stands for the most similar choice, so an empty one for the shortest.

    Args:
        extraction: The extracted text.
        choices: Option texts, for `multi_choice`.
        question_type: `multi_choice` or `free_form`.
        answer_type: `integer`, `float`, `text` or `list`.
        precision: Number of decimals of a `float`.
    """
    if question_type == "multi_choice" and choices:
        text = extraction.strip()
        letter = re.search(r"\(([A-Za-z])\)", text)
        # Without parentheses only an upper-case letter counts: a lower-case one may be an option's text.
        text = letter[1].upper() if letter else text
        if len(text) == 1 and text in LETTERS[: len(choices)]:
            return choices[LETTERS.index(text)]
        return min(choices, key=lambda choice: Levenshtein.distance(text, choice))
    try:
        if answer_type == "integer":
            return str(int(float(extraction)))
        if answer_type == "float":
            return None if precision is None else str(round(float(extraction), int(precision)))
    # No number, or one without a whole part: nan and inf.
    except (ValueError, OverflowError):
        return None
    return extraction
