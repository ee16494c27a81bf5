"""Read the marks in a judge's reply. What is not plainly a mark is not read, so that the judge can be asked again."""

from __future__ import annotations

import re
from collections.abc import Sequence

_EMPHASIS = str.maketrans("", "", "*_`#")
_NUMBER = r"(-?\d+(?:\.\d+)?)"
# A label in front, such as `Score for question 1:`, or nothing.
_MARK = re.compile(rf"(?:[^\n:]*:)?\s*{_NUMBER}\s*\.?")
_MARKS = re.compile(rf"\s*{_NUMBER}[\s,;]+{_NUMBER}\s*\.?\s*")
# `4.5` and `4/10` are no ratings from 0 to 6.
_RATING = re.compile(r"rating:\s*([0-6])(?!\.?\d)(?!\s*/\s*(?!6\b))(?!\s*out of\s+(?!6\b))", re.IGNORECASE)


def stated_mark(reply: str) -> float | None:
    """Return the only number of a reply that is a number, with or without a label and a colon before it, or None.

    `0.3`, `**1**` and `Score for question 1: 0.3` are marks. `3/10`, `7 out of 10` and longer texts are not.
    """
    found = _MARK.fullmatch(reply.translate(_EMPHASIS).strip())
    return float(found[1]) if found else None


def two_marks(reply: str) -> list[float] | None:
    """Return the two numbers of a first line that holds nothing else, or None."""
    first = (reply.translate(_EMPHASIS).strip().splitlines() or [""])[0]
    found = _MARKS.fullmatch(first)
    return [float(found[1]), float(found[2])] if found else None


def stated_word(reply: str, words: Sequence[str]) -> str | None:
    """Return which of the words a reply consists of, without case, quotes and a period, or None."""
    word = reply.translate(_EMPHASIS).strip().strip("\"'“”.").strip().lower()
    return word if word in words else None


def stated_rating(reply: str) -> float | None:
    """Return the rating from 0 to 6 that a reply states as `Rating: N`, or None if it states none or several."""
    found = set(_RATING.findall(reply.translate(_EMPHASIS)))
    return float(found.pop()) if len(found) == 1 else None
