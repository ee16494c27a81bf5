"""Multiple choice: extract the letter that an answer means, by the rules of several benchmarks."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# Only an upper-case letter counts: "the answer is a dog" does not state option A.
_ANSWER_IS = re.compile(r"(?i:(?:answer|option|choice)\s+is\s*:?\s*)\(?([A-Z])\b")
_REFUSAL = "Z"
_REALWORLD_PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)


def first_character(prediction: str) -> str:
    """Return the first character of an answer in upper case, as SEED-Bench does."""
    return prediction.strip()[:1].upper()


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


def stated_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """Return MMBench's letter without a judge, Z for a refusal, or None.

    In this order: the only option letter among the words if it is one of the last four, a refusal, `answer is X`, and
    the only option whose text occurs in the answer.

    Args:
        prediction: The answer.
        options: Option texts by letter.
    """
    words = prediction.translate(_SEPARATORS).split()
    letters = {word for word in words if word in options}
    if len(letters) == 1:
        letter = letters.pop()
        if letter in words[-4:]:
            return letter
    elif not letters and _REFUSAL in words:
        return _REFUSAL
    stated = _ANSWER_IS.search(prediction)
    if stated and stated[1] in options:
        return stated[1]
    text = prediction.lower()
    if len(text) > 2 * sum(len(option) for option in options.values()):
        return None
    named = [letter for letter, option in options.items() if option.strip() and option.strip().lower() in text]
    return named[0] if len(named) == 1 else None


def mmmu_letter(prediction: str, options: Sequence[str], seed: str) -> tuple[str, bool]:
    """Return MMMU's letter: `(X)`, else `X `, else `X.`, else an option's text. The last occurrence wins.

    Without any of these, a letter is drawn at random, as in the official script.

    Args:
        prediction: The answer.
        options: Option texts in the order of their letters.
        seed: Seed of the draw, such as the question's id, so that every run draws the same letter.

    Returns:
        The letter, and whether it was drawn.
    """
    letters = LETTERS[: len(options)]
    text = prediction
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    # Of several letters, the official script takes the last one that stands alone.
    for form, alone in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        positions = {letter: text.rfind(alone.format(letter)) for letter in letters if form.format(letter) in text}
        if positions:
            return max(positions, key=lambda letter: positions[letter]), False
    if len(text.split()) > 5:
        lower = text.lower()
        named = zip(letters, options, strict=True)
        positions = {
            letter: lower.rfind(option.lower()) for letter, option in named if option and option.lower() in lower
        }
        if positions:
            return max(positions, key=lambda letter: positions[letter]), False
    return random.Random(seed).choice(letters) if letters else "", True


def realworld_letter(prediction: str, options: Sequence[str]) -> str:
    """Return MME-RealWorld's letter: the first capital A-E once answer phrases are removed, else the matching option.

    A sentence that starts with the article "A" therefore counts as option A, as in the official script. An empty answer
    is wrong here, while that script takes the first option.

    Args:
        prediction: The answer.
        options: Five texts such as `(A) red`. The Chinese ones may have wide brackets.
    """
    text = prediction.strip()
    for phrase in _REALWORLD_PHRASES:
        text = text.replace(phrase, "")
    found = re.search(r"[ABCDE]", text)
    if found:
        return found[0]
    if len(text.split()) > 10:
        return ""
    if not text.strip():
        return ""
    return next((option[1:2] for option in options if text.lower() in option.lower()), "")
