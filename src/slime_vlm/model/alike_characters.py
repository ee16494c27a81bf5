"""Characters that look alike, told apart by the rest of their word: "2O14" is 2014, and "dayS" is days.

Deviation: not in the paper, see `character_naming`. A place shows a circle or a stroke, and only its neighbours tell
which character it is.
"""

from __future__ import annotations

import re

_TO_DIGIT = {"O": "0", "o": "0", "l": "1", "I": "1"}
_TO_LETTER = {"0": "O", "1": "l"}
_SAME_SHAPE = frozenset("cosuvwxzCOSUVWXZ")
"""Letters whose small and capital forms differ in size alone."""

_FEWEST = 3  # letters behind a digit that make it a letter


def told_apart(word: str) -> str:
    """Return a word with characters that look alike as its other characters suggest.

    - "O", "o", "I" and "l" are digits if the nearest other letter or digit on each side is one. "l" behind a last digit
      stays: it may be litres.
    - "0" and "1" before three or more small letters, at the beginning of a word, are letters.
    - A letter with forms of one shape has the case of the nearest letter that shows its own. The first letter of a word
      shows nothing, and it is changed only if two others or more are capitals and none is small.
    """
    characters = list(word)
    for index, character in enumerate(characters):
        if character in _TO_DIGIT:
            before, after = _nearest(word[:index][::-1]), _nearest(word[index + 1 :])
            beside = [found for found in (before, after) if found]
            if beside and all(map(str.isdigit, beside)) and (character != "l" or after):
                characters[index] = _TO_DIGIT[character]
    if any(c.isdigit() for c in characters) and all(c in "01OolI" for c in characters if c.isalnum()):
        characters = [_TO_DIGIT.get(c, c) for c in characters]
    elif re.match(rf"[01][a-z]{{{_FEWEST},}}[^\d]*$", word):
        characters[0] = _TO_LETTER[characters[0]]
    return re.sub(r"[^\W\d_]+", lambda run: _in_one_case(run[0]), "".join(characters))


def _nearest(text: str) -> str:
    """Return the first letter or digit of a text that is like no other, "" for none."""
    return next((c for c in text if c.isalnum() and c not in "01OolI"), "")


def _in_one_case(letters: str) -> str:
    shown = [(k, c.isupper()) for k, c in enumerate(letters) if k and c not in _SAME_SHAPE]
    found = list(letters)
    for index, character in enumerate(letters):
        if not shown or character not in _SAME_SHAPE:
            continue
        if index:
            is_capital = min(shown, key=lambda one: abs(one[0] - index))[1]
            found[index] = character.upper() if is_capital else character.lower()
        elif len(shown) > 1 and all(capital for _, capital in shown):
            found[0] = character.upper()
    return "".join(found)
