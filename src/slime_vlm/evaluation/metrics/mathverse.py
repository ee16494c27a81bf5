"""MathVerse without a judge: the letter or the result that a short answer states.

Deviation: there is no official rule. Upstream, a language model extracts every answer, and another one compares.
"""

from __future__ import annotations

import re

_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the correct option is", "final answer:")
_BOX = "\\boxed{"


def stated_result(prediction: str) -> str:
    """Return the result of an answer: its last box, or what follows the last phrase such as `the answer is`."""
    box = prediction.rfind(_BOX)
    if box >= 0:
        return _braced(prediction[box + len(_BOX) :])
    lower = prediction.lower()
    # Lower case may be longer than the text (İ). Positions would not match, so phrases are not searched.
    if len(lower) == len(prediction):
        ends = [lower.rfind(phrase) + len(phrase) for phrase in _PHRASES if phrase in lower]
        if ends:
            prediction = prediction[max(ends) :]
    return prediction.strip().strip(":").strip().rstrip(".")


def stated_option(prediction: str, letters: str) -> str | None:
    """Return the option that an answer states alone, first, last or in parentheses, or None."""
    text = stated_result(prediction).strip()
    for pattern in (r"\(?([A-Z])\)?[.:]?", r"\(([A-Z])\).*", r"([A-Z])[.:)] .*", r".*\(([A-Z])\)"):
        found = re.fullmatch(pattern, text, re.DOTALL)
        if found and found[1] in letters:
            return found[1]
    return None


def _braced(text: str) -> str:
    depth = 1
    for position, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if not depth:
            return text[:position].strip()
    return text.strip()
