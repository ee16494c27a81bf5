"""The letter that an answer states, by the forms in which letters occur: lmms-eval's rule for Video-MME and MMStar."""

from __future__ import annotations

from collections.abc import Iterator

_STRIPPED = (",", ".", "!", "?", ";", ":", "'", '"')
_PHRASES = (
    "answer is", "option is", "choice is", "correct choice is", "i choose", "i select", "i pick",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
# The published phrases, of which those above are a part: only their first places differ.
_LONGER = (
    "the answer is", "the correct answer is", "correct answer is", "the best answer is", "best answer is",
    "the correct option is", "correct option is", "the best option is", "best option is", "the choice is",
    "the correct choice is", "my answer is", "my choice is",
)  # fmt: skip
# Forms by rank, the last one the best.
_FORMS = ("{} ", "{})", "{}:", "{}.", "({})")
_PHRASE, _END, _START = len(_FORMS), len(_FORMS) + 1, len(_FORMS) + 2


def ranked_letter(prediction: str, letters: str = "ABCD") -> str | None:
    """Return the letter that occurs in the best form, the last one if several do, or None.

    From best to worst: at the start, at the end, after a phrase such as `answer is`, in parentheses, before a period, a
    colon, a parenthesis, a blank. Only if there is none, a letter anywhere. A letter at the end of a word counts.
    """
    text = prediction.strip()
    for mark in _STRIPPED:
        text = text.strip(mark)
    text = f" {text} "
    places = list(_places(text, letters))
    if not places:
        places = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(places, key=lambda place: place[:2])[2] if places else None


def _places(text: str, letters: str) -> Iterator[tuple[int, int, str]]:
    """Yield rank, position and letter of everything that may state an option."""
    for rank, form in enumerate(_FORMS):
        for letter in letters:
            if form.format(letter) in text:
                yield rank, text.rfind(form.format(letter)), letter
    lower, bare = text.lower(), text.strip()
    # Of each phrase the first place counts, and of each letter the first one after it, however far.
    for start in [lower.find(phrase) + len(phrase) for phrase in (*_PHRASES, *_LONGER) if phrase in lower]:
        for letter in letters:
            if letter in text[start:]:
                yield _PHRASE, text.find(letter, start), letter
    for letter in letters:
        if bare.startswith(letter) and not bare[1:2].isalpha():
            yield _START, 0, letter
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            yield _END, len(text), letter
