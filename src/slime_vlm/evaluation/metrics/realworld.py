"""The letter that an answer states, by MME-RealWorld's rule."""

from __future__ import annotations

import re
from collections.abc import Sequence

_COMMON = ("The best answer is", "The correct answer is", "The answer is", "The answer")
# Two commas are missing in the authors' list, so that four phrases became two, which hardly ever occur.
_AUTHORS = (*_COMMON, "The best option isThe correct option is", "Best answer:Best option:")
_LMMS_EVAL = (*_COMMON, "The best option is", "The correct option is", "Best answer:", "Best option:")
_MOST_WORDS = 10


def realworld_letter(prediction: str, options: Sequence[str]) -> str:
    """Return MME-RealWorld's letter by the authors' rule, or an empty text.

    It is the first capital A to E once phrases are removed, else the first option of which a short answer is a part.
    Scores depend on its oddities: `A sentence` states option A, `Best answer: C` option B, and an empty answer is part
    of the first option.

    Args:
        prediction: The answer.
        options: Five texts such as `(A) red`. The Chinese ones may have wide brackets.
    """
    return _letter(prediction, options, _AUTHORS)


def realworld_letter_lmms_eval(prediction: str) -> str:
    """Return the letter by lmms-eval's rule: all eight phrases are removed, and no texts of options are compared."""
    return _letter(prediction, ("(A)", "(B)", "(C)", "(D)", "(E)"), _LMMS_EVAL)


def _letter(prediction: str, options: Sequence[str], phrases: Sequence[str]) -> str:
    text = prediction.strip()
    for phrase in phrases:
        text = text.replace(phrase, "")
    found = re.search(r"[ABCDE]", text)
    if found:
        return found[0]
    if len(text.split()) > _MOST_WORDS:
        return ""
    return next((option[1] for option in options if text.lower() in option.lower()), "")
