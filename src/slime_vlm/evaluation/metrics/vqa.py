"""VQA accuracy with its normalisation of answers (VQAv2, TextVQA, VizWiz)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The published pattern has a malformed look-behind, so a digit before a period does not protect it. Its flag is taken
# as the number of replacements. Scores depend on both.
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = {"a", "an", "the"}

# Contractions that the published table restores from the spelling without an apostrophe.
_ONE_APOSTROPHE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
# Contractions with two apostrophes, restored from the spellings that lack either one.
_TWO_APOSTROPHES = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
"""
# The table also has I'm, I've and I'd've. They never match, because words are in lower case by then.
_CONTRACTIONS = {
    **{word.replace("'", ""): word for word in _ONE_APOSTROPHE.split()},
    **{word.replace("'", "", 1): word for word in _TWO_APOSTROPHES.split()},
    **{"'".join(word.split("'")[:2]) + word.split("'")[2]: word for word in _TWO_APOSTROPHES.split()},
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def tidy_answer(text: str) -> str:
    """Apply the first step of the EvalAI processor, which the original VQA script does not have."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def normalise_answer(text: str, *, evalai: bool = True) -> str:
    """Return an answer as VQA compares it: punctuation, periods, number words, articles and contractions unified.

    Args:
        text: The answer.
        evalai: Whether to start with `tidy_answer`.
    """
    text = tidy_answer(text) if evalai else text
    text = _on_one_line(text)
    comma = _COMMA_IN_NUMBER.search(text) is not None
    # The original text decides which characters vanish and which become a blank.
    cleaned = text
    for mark in _PUNCTUATION:
        vanishes = comma or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if vanishes else " ")
    cleaned = _PERIOD.sub("", cleaned, count=_MOST_PERIODS)
    words = [_NUMBER_WORDS.get(word, word) for word in cleaned.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the mean over annotators of min(1, matches among the others / 3), with both sides normalised.

    With ten answers of which k match, that is 0, 0.3, 0.6 and 0.9 for k up to 3, and 1 from 4 on. This is the rule of
    LLaVA's evaluator for TextVQA, and of VizWiz.
    """
    return _leave_one_out(normalise_answer(prediction), [normalise_answer(answer) for answer in answers])


def submitted_vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the accuracy that VQAv2's server gives to a submission of the LLaVA family.

    The prediction passes the EvalAI processor before it is submitted. The server then scores by the original rule.
    """
    return original_vqa_accuracy(normalise_answer(prediction), answers)


def original_vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the accuracy by VQAv2's original rule: as `vqa_accuracy`, but unanimous answers are not normalised.

    Line ends, tabs and outer blanks never count.
    """
    given, wanted = _on_one_line(prediction), [_on_one_line(answer) for answer in answers]
    if len(set(wanted)) > 1:
        given, wanted = normalise_answer(given, evalai=False), [normalise_answer(one, evalai=False) for one in wanted]
    return _leave_one_out(given, wanted)


def vqa_accuracy_lmms_eval(prediction: str, answers: Sequence[str]) -> float:
    """Return VQAv2's accuracy by lmms-eval, which normalises always and never with the EvalAI processor."""
    wanted = [normalise_answer(answer, evalai=False) for answer in answers]
    return _leave_one_out(normalise_answer(prediction, evalai=False), wanted)


def _on_one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    if not answers:
        return 0.0
    matches = [answer == prediction for answer in answers]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)
