"""From a question and the texts of a page to an answer, by rules alone.

A cell of a table is where the row and the column that the question names cross. Else the text that the question names
best is the key, and its value is the nearest fitting text to the right of it, below it or, as over bars, above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from slime_vlm.evaluation.ocr_baseline.boxes import TextBox, split_boxes
from slime_vlm.evaluation.ocr_baseline.question import WEAK, Wanted, alike, key_score, understand, words_of
from slime_vlm.pages import ABSENT

# A key with fewer of its words in the question than this is none.
_LEAST = 0.6
# So does one that leaves half of the question's words unsaid: another column of the row, another kind of number.
_LEAST_COVERED = 0.55
_OTHER_TYPE = 0.4
# Costs in heights of the key: what speaks against a neighbour being the value.
_OTHER_DIRECTION = 3.0
_UPWARDS = 4.0
_ANOTHER_KEY = 6.0
_FARTHEST_BELOW = 2.5
_PER_HEIGHT_RIGHT = 0.1


def answer_from_text(question: str, boxes: Sequence[TextBox]) -> str:
    """Answer a question about a page that was read.

    Args:
        question: the question.
        boxes: what was read, in any order.

    Returns:
        A text of the page, or `pages.ABSENT` where nothing on it is what the question names.
    """
    wanted, texts = understand(question), split_boxes(boxes)
    if wanted.extreme:
        return _extreme(wanted, texts)
    if not wanted.words or not texts:
        return ABSENT
    best = max(texts, key=lambda box: _rank(wanted, box, texts))
    score = key_score(wanted, best)
    cell = _cell(wanted, texts, wanted.covered_by(words_of(best)))
    if cell is not None:
        return cell.text
    if score < _LEAST or wanted.covered_by(words_of(best)) < _LEAST_COVERED:
        return ABSENT
    within = _after_key(wanted, best)
    if within:
        return within
    value = _value(wanted, best, texts)
    return ABSENT if value is None else value.text


def _rank(wanted: Wanted, box: TextBox, texts: Sequence[TextBox]) -> tuple[float, bool]:
    """How likely a text is the key: as it is named, less where the value beside it is of another type."""
    score = key_score(wanted, box)
    if score >= _LEAST and wanted.kind:
        value = _value(wanted, box, texts)
        score -= _OTHER_TYPE * (value is None or wanted.misfit(value.text) > 0)
    return round(score, 3), box.is_key


def _after_key(wanted: Wanted, box: TextBox) -> str:
    """What follows the words that are asked for in the same box; "" when it ends with them or starts otherwise."""
    words = box.text.split()
    number = 0
    while number < len(words) and _of_key(wanted, replace(box, text=words[number])):
        number += 1
    return " ".join(words[number:]) if number else ""


def _of_key(wanted: Wanted, word: TextBox) -> bool:
    """Whether a word is asked for, or says nothing by itself."""
    names = words_of(word)
    return _all_asked(wanted, word) or (not _has_digit(word) and all(name in WEAK for name in names))


def _cell(wanted: Wanted, texts: Sequence[TextBox], single: float) -> TextBox | None:
    """The cell where a row and a column cross that together are asked for better than any text alone."""
    named = [box for box in texts if _all_asked(wanted, box)]
    found: tuple[float, TextBox] | None = None
    for row, column in product(named, named):
        if row is column or row.left >= column.left or column.top >= row.top or row.on_line_with(column):
            continue
        covered = wanted.covered_by([*words_of(row), *words_of(column)])
        if covered <= max(single, found[0] if found else _LEAST):
            continue
        beside = [box for box in texts if box is not row and box.on_line_with(row) and box.left >= row.right]
        if beside:
            found = covered, min(beside, key=column.off_axis)
    return None if found is None else found[1]


def _all_asked(wanted: Wanted, box: TextBox) -> bool:
    words = words_of(box)
    return bool(words) and all(any(alike(asked, word) for asked in wanted.words) for word in words)


def _value(wanted: Wanted, key: TextBox, texts: Sequence[TextBox]) -> TextBox | None:
    to_the_right = _values_stand_right(texts)
    costs = []
    for box in texts:
        if box is key:
            continue
        cost = _distance(key, box, to_the_right)
        if cost is None:
            continue
        cost += wanted.misfit(box.text)
        cost += _ANOTHER_KEY if box.is_key else 0.0
        costs.append((cost, box))
    return min(costs, key=lambda pair: pair[0])[1] if costs else None


def _distance(key: TextBox, box: TextBox, to_the_right: bool) -> float | None:
    """How far a text is from being the value of a key by its place; None where it cannot be."""
    height = max(key.height, 1.0)
    if box.on_line_with(key):
        gap = (box.left - key.right) / height
        return None if gap < -1.0 else max(gap, 0.0) * _PER_HEIGHT_RIGHT + (0.0 if to_the_right else _OTHER_DIRECTION)
    if not box.in_column_with(key):
        return None
    below, above = (box.top - key.bottom) / height, (key.top - box.bottom) / height
    if -0.5 <= below <= _FARTHEST_BELOW:
        return max(below, 0.0) + (_OTHER_DIRECTION if to_the_right else 0.0)
    return None if above < -0.5 else _UPWARDS + max(above, 0.0) * _PER_HEIGHT_RIGHT


def _values_stand_right(texts: Sequence[TextBox]) -> bool:
    """Whether texts without digits more often have one with digits beside them than under them."""
    right = below = 0
    for key in texts:
        if _has_digit(key):
            continue
        beside = [box for box in texts if box is not key and box.on_line_with(key) and box.left > key.left]
        under = [
            box
            for box in texts
            if box.in_column_with(key) and -0.5 <= (box.top - key.bottom) / max(key.height, 1) <= 1.5
        ]
        right += bool(beside) and _has_digit(min(beside, key=lambda box: box.left))
        below += bool(under) and _has_digit(min(under, key=lambda box: box.top))
    return right >= below


def _has_digit(box: TextBox) -> bool:
    return any(character.isdigit() for character in box.text)


def _extreme(wanted: Wanted, texts: Sequence[TextBox]) -> str:
    """The label of the largest or smallest number of a chart."""
    numbers = [
        (float(box.text.replace(",", "")), box)
        for box in texts
        if box.text.replace(",", "").replace(".", "", 1).isdigit()
    ]
    labels = [box for box in texts if not _has_digit(box)]
    if not numbers or not labels:
        return ABSENT
    pick = max if wanted.extreme == "highest" else min
    _, number = pick(numbers, key=lambda pair: pair[0])
    beside = [box for box in labels if box.on_line_with(number) and box.right <= number.left]
    if beside:
        return max(beside, key=lambda box: box.right).text
    under = [box for box in labels if box.in_column_with(number) and box.top >= number.bottom]
    return min(under, key=lambda box: box.top).text if under else ABSENT
