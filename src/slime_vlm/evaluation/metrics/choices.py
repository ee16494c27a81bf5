"""Multiple choice: which letter an answer means, by the rules of several benchmarks."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# The letter in upper case alone: "the answer is a dog" states no option A.
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
    """SEED-Bench: the first character of the answer, in upper case."""
    return prediction.strip()[:1].upper()


def scienceqa_letter(prediction: str, letters: str) -> str | None:
    """ScienceQA as LLaVA reads it: a letter, a letter and `. `, or one `The answer is X.`; anything else failed.

    The period of its pattern stands for any character, so `The answer is X, since` counts as well.
    """
    text = prediction.strip()
    if len(text) == 1 and text in letters:
        return text
    if len(text) >= 3 and text[0] in letters and text[1:3] == ". ":
        return text[0]
    found = re.findall(r"The answer is ([A-Z]).", text)
    return found[0] if len(found) == 1 and found[0] in letters else None


def stated_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """MMBench without a judge: a lone letter near the end, a refusal (Z), `answer is X`, or one option's text.

    Args:
        prediction: the answer.
        options: texts by letter.
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
    """MMMU: `(X)`, else `X `, else `X.`, else an option's text; the last one wins, and without any a draw decides.

    Args:
        prediction: the answer.
        options: texts in the order of their letters.
        seed: of the draw, such as the question's id: a question is drawn alike in every run.

    Returns:
        The letter, and whether it was drawn.
    """
    letters = LETTERS[: len(options)]
    text = prediction
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    # Of several letters the official script takes the last that stands alone, in whatever form it found them.
    for form, alone in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        places = {letter: text.rfind(alone.format(letter)) for letter in letters if form.format(letter) in text}
        if places:
            return max(places, key=lambda letter: places[letter]), False
    if len(text.split()) > 5:
        lower = text.lower()
        named = zip(letters, options, strict=True)
        places = {letter: lower.rfind(option.lower()) for letter, option in named if option and option.lower() in lower}
        if places:
            return max(places, key=lambda letter: places[letter]), False
    return random.Random(seed).choice(letters) if letters else "", True


def realworld_letter(prediction: str, options: Sequence[str]) -> str:
    """MME-RealWorld: the first capital A-E anywhere after its answer phrases are gone, else an option that holds it.

    A sentence that starts with the article "A" therefore counts as option A, as in the official script. An empty answer
    is wrong, where that script takes the first option.

    Args:
        prediction: the answer.
        options: five texts such as `(A) red`; the Chinese ones may have wide brackets.
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
