"""Multiple choice: the letters of options, and the shortest rules that extract one."""

from __future__ import annotations

import re

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def first_character(prediction: str) -> str:
    """Return the first character of an answer in upper case, as SEED-Bench does."""
    return prediction.strip()[:1].upper()


def mmstar_letter(prediction: str) -> str:
    """Return the character where MMStar's script looks for a letter, in upper case, or an empty text.

    It is the first one, or the one after an opening parenthesis, `option ` or `the answer is `, all without case.
    """
    text = prediction.lower().strip().replace("\n", " ")
    for start in ("(", "option ", "the answer is "):
        if text.startswith(start):
            return text[len(start) : len(start) + 1].upper()
    return text[:1].upper()


def scienceqa_letter(prediction: str, letters: str) -> str | None:
    """Return ScienceQA's letter by LLaVA's rule, or None if there is none.

    The rule takes a single letter, a letter followed by `. `, or exactly one `The answer is X.`. The period of that
    pattern matches any character, so `The answer is X, since` counts as well.
    """
    text = prediction.strip()
    if len(text) == 1 and text in letters:
        return text
    if len(text) >= 3 and text[0] in letters and text[1:3] == ". ":
        return text[0]
    found = re.findall(r"The answer is ([A-Z]).", text)
    return found[0] if len(found) == 1 and found[0] in letters else None


def scienceqa_letter_lmms_eval(prediction: str, letters: str) -> str | None:
    """Return ScienceQA's letter by lmms-eval's rule, or None: a letter alone in any case, or a capital and a period."""
    text = prediction.strip()
    if len(text.lower()) == 1 and text.upper() in letters:
        return text.upper()
    if len(text) >= 2 and text[0].isupper() and text[1] == "." and text[0] in letters:
        return text[0]
    return None
