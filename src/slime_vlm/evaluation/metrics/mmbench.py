"""The letter that an answer states, by MMBench's rules and those that descend from them (HR-Bench)."""

from __future__ import annotations

import re
from collections.abc import Mapping

REFUSAL = "Z"
"""The letter of an answer that chooses none."""

_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# The published pattern has no end of word, and ignores case: `answer is blue` states option B.
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
_LAST_WORDS = 4
_NO_ANSWER = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
# What may stand before and after the letter of a word, in the order in which lmms-eval tries them.
_FORMS = (
    "{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).",
)  # fmt: skip


def mmbench_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """Return MMBench's letter without a judge, Z for a refusal, or None, by VLMEvalKit's rule.

    In this order: a known phrase of refusal, the only option letter among the words if its first place is among the
    last four, the word Z, `answer is X`, and the only option whose text occurs in an answer that is not too long.

    Args:
        prediction: The answer.
        options: Option texts by letter.
    """
    letter = None
    if _NO_ANSWER not in prediction:
        words, letter = _words(prediction), _refusal(prediction, options)
        stated = [one for one in options if one in words]
        if letter is None and len(stated) == 1 and words.index(stated[0]) >= len(words) - _LAST_WORDS:
            letter = stated[0]
        if letter is None:
            found = _ANSWER_IS.search(prediction)
            letter = found[1].upper() if found and found[1].upper() in options else None
    if letter is None and len(prediction.lower()) <= 2 * sum(map(len, options.values())):
        letter = _option_named(prediction, options)
    return letter


def hr_bench_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """Return HR-Bench's letter without a judge, Z for a refusal, or None.

    An earlier form of MMBench's rule: the only option letter counts anywhere, and texts in answers of any length.
    """
    letter = None
    if _NO_ANSWER not in prediction:
        stated = [one for one in options if one in _words(prediction)]
        letter = _refusal(prediction, options)
        if letter is None and len(stated) == 1:
            letter = stated[0]
    return letter or _option_named(prediction, options)


def mmbench_letter_lmms_eval(prediction: str, options: Mapping[str, str]) -> str | None:
    """Return MMBench's letter by lmms-eval's rule, or None.

    A letter A to E must be a word, or a word with certain marks around it. As a plain word it does not count in an
    answer of more than three words that has the word `A`.
    """
    letters = "ABCDE"
    if _NO_ANSWER not in prediction:
        words = prediction.split()
        stated = [letter for letter in letters if letter in words]
        if len(stated) == 1 and ("A" not in words or len(words) <= 3):
            return stated[0]
        for form in _FORMS:
            stated = [letter for letter in letters if form.format(letter) in words]
            if len(stated) == 1:
                return stated[0]
    return _option_named(prediction, options)


def _words(prediction: str) -> list[str]:
    return prediction.translate(_SEPARATORS).split()


def _refusal(prediction: str, options: Mapping[str, str]) -> str | None:
    """Return Z if a known phrase of refusal occurs, or the word Z and no option letter."""
    words = _words(prediction)
    refused = REFUSAL in words and not any(letter in words for letter in options)
    return REFUSAL if refused or any(phrase in prediction for phrase in _REFUSALS) else None


def _option_named(prediction: str, options: Mapping[str, str]) -> str | None:
    """Return the only option whose text occurs in the answer, ignoring case, or None. An empty text always occurs."""
    text = prediction.lower()
    named = [letter for letter, option in options.items() if option.lower() in text]
    return named[0] if len(named) == 1 else None
