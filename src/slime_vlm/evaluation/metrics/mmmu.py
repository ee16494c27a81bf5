"""MMMU: the letter that an answer states, and everything that an open answer may mean."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from slime_vlm.evaluation.metrics.choices import LETTERS

Value = str | float

_FEW_WORDS = 5
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
# With thousands separators, in scientific notation, or plain.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def mmmu_letter(prediction: str, options: Sequence[str], seed: str) -> tuple[str, bool]:
    """Return MMMU's letter by the authors' rule: `(X)`, else ` X `, else an option's text. The last occurrence wins.

    An option's text counts only in an answer of more than five words. Without any of these, a letter is drawn at
    random, as in the official script.

    Deviation: every question has its own seed. The script draws from one sequence, so its draws depend on the order.

    Args:
        prediction: The answer.
        options: Option texts in the order of their letters.
        seed: Seed of the draw, such as the question's id, so that every run draws the same letter.

    Returns:
        The letter, and whether it was drawn.
    """
    return _letter(prediction, options, seed, (("({})", "({})"), (" {} ", " {} ")))


def mmmu_letter_lmms_eval(prediction: str, options: Sequence[str], seed: str) -> tuple[str, bool]:
    """Return MMMU's letter by lmms-eval's rule: a letter at the end of a word counts, too. See `mmmu_letter`.

    Of several such letters, the last one that stands alone is taken.
    """
    return _letter(prediction, options, seed, (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")))


def mmmu_pro_letter(prediction: str, options: Sequence[str], seed: str) -> tuple[str, bool]:
    """Return MMMU-Pro's letter by the authors' rule: the only one after the last `Answer:`, else as for MMMU.

    Every capital after it counts, also one within a word. Other answers are read as by `mmmu_letter_lmms_eval`.
    """
    _, marker, stated = prediction.rpartition("Answer:")
    letters = [letter for letter in LETTERS[: len(options)] if letter in stated]
    if marker and len(letters) == 1:
        return letters[0], False
    return mmmu_letter_lmms_eval(prediction, options, seed)


def _letter(prediction: str, options: Sequence[str], seed: str, forms: Sequence[tuple[str, str]]) -> tuple[str, bool]:
    """Return the letter by the first of `forms` that occurs, each the form that counts and the one that is ranked."""
    letters = LETTERS[: len(options)]
    text = prediction
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    for counted, ranked in forms:
        places = {letter: text.rfind(ranked.format(letter)) for letter in letters if counted.format(letter) in text}
        if places:
            return max(places, key=lambda letter: places[letter]), False
    if len(text.split()) > _FEW_WORDS:
        lower = text.lower()
        named = [(letter, option.lower()) for letter, option in zip(letters, options, strict=True)]
        places = {letter: lower.rfind(option) for letter, option in named if option in lower}
        if places:
            return max(places, key=lambda letter: places[letter]), False
    return random.Random(seed).choice(letters) if letters else "", True


def normalise_value(text: str) -> list[Value]:
    """Return a number rounded to two decimals, or the text in lower case.

    A single character gets a blank before or after it, so that it only matches a whole word.
    """
    text = text.strip()
    number = _number(text)
    if number is not None:
        return [number]
    text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def open_values(prediction: str) -> list[Value]:
    """Return everything that an open answer may mean: key phrases after words such as `is`, and their numbers."""
    phrases = _key_phrases(prediction)
    numbers = [number for phrase in phrases for pattern in _NUMBERS for number in pattern.findall(phrase)]
    values: dict[Value, None] = {}
    for text in [*phrases, *numbers]:
        values.update(dict.fromkeys(normalise_value(text)))
    return list(values)


def open_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if anything that the answer may mean contains an accepted text or equals an accepted number."""
    accepted = [value for answer in answers for value in normalise_value(answer)]
    for value in open_values(prediction):
        for wanted in accepted:
            if isinstance(value, str) and isinstance(wanted, str):
                if wanted in value:
                    return 1.0
            elif value == wanted:
                return 1.0
    return 0.0


def _key_phrases(prediction: str) -> list[str]:
    """Return the shortest text after an indicator for every line, or the whole answer if no line has one.

    The official script is meant to split at sentences as well. It searches for capitals in a text that is in lower case
    by then, so it never does. Scores depend on that.
    """
    text = prediction.strip().strip(".").lower()
    lines = text.split("\n")
    phrases = []
    for number, line in enumerate(lines, start=1):
        # The right side of an equation counts only in the last line, where it is the result.
        indicators = (*_INDICATORS, "=") if number == len(lines) else _INDICATORS
        shortest = ""
        for rest in [line.split(word)[-1].strip() for word in indicators if word in line]:
            if not shortest or len(rest) < len(shortest):
                shortest = rest
        if shortest and shortest not in {":", ",", ".", "!", "?", ";", "'"}:
            phrases.append(shortest)
    return phrases or [text]


def _number(text: str) -> float | None:
    try:
        return round(float(text.replace(",", "")), 2)
    except ValueError:
        return None
