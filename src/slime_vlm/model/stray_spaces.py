"""Spaces that a reader sees and that are none: "46. 05" is 46.05, "5 ,999 .81" is 5,999.81, and "Motor s" is Motors.

Deviation: not in the paper, see `character_naming`. Where all characters are equally wide, a point stands as far from
the digits beside it as a word from the next one in other faces, so a place cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(
    r"(?<![\d.,:])"
    r"(?:\d{1,3}(?: ?[.,] ?\d{3})+(?: ?[.,] ?\d\d)?|\d+ ?[.,:] ?\d\d"  # thousands, or one mark and two digits
    r"|\d{4} ?([-/.]) ?\d\d ?\1 ?\d\d|\d\d ?([-/.]) ?\d\d ?\2 ?\d{4})"  # dates
    r"(?! ?[.,:] ?\d|\d)"
)
_WORD = re.compile(
    r" (?= )"  # one of two
    r"|(?<=[A-Za-z][a-z]{3}) (?=[b-wyz](?![A-Za-z0-9]))"  # one letter behind a word; "a" and "x" may stand alone
    r"|(?<=[A-Za-z]-) (?=[A-Za-z])"  # behind a hyphen that has none before it
    r"|(?<=[A-Za-z]) (?=[.,;](?: |$))"  # before a mark
)
_MARK = re.compile(r"\d( ?)[-/.,:]( ?)\d")
_UNEVEN = 2
"""How much farther a mark may be from the digit on one side than from that on the other."""


def spaces_in_numbers(line: str, places: Sequence[int]) -> list[int]:
    """Return the indices of the spaces of a line that stand within an amount, a decimal number, a time or a date.

    Args:
        line: Its characters.
        places: Where each of them stands. A mark is about as far from the digit before it as from the one behind: the
            number of a row and what the next column says are not.

    Two numbers in a sentence ("rooms 4, 12") look the same. In 32 held-out pages twenty numbers were read with such
    spaces, and none were printed so.
    """
    found = []
    for number in _NUMBER.finditer(line):
        if " " not in number[0]:
            continue
        for mark in _MARK.finditer(line, number.start(), number.end()):
            at = mark.end(1)
            before, behind = places[at] - places[mark.start()], places[mark.end() - 1] - places[at]
            if max(before, behind) <= _UNEVEN * min(before, behind):
                found += [mark.start(group) for group in (1, 2) if mark[group]]
    return found


def spaces_in_words(line: str) -> list[int]:
    """Return the indices of the spaces of a line that no English text has.

    "weight in g" keeps its space, since "in" is short, and "Total g" does not.
    """
    return [space.start() for space in _WORD.finditer(line)]
