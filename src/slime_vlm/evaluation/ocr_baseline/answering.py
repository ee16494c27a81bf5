"""Answer a question from the texts of a page, by rules alone.

If the question names a row and a column of a table, the answer is the cell where they cross. Otherwise the text that
matches the question best is the key. Its value is the nearest fitting text to the right of it, below it or, as over
bars of a chart, above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from slime_vlm.evaluation.ocr_baseline.boxes import TextBox, split_boxes
from slime_vlm.evaluation.ocr_baseline.question import WEAK, Wanted, alike, key_score, understand, words_of
from slime_vlm.pages import ABSENT

# Least score of a text to count as the key.
_LEAST = 0.6
# A key must also cover this share of the question's words. Otherwise it is another column, or another kind of number.
_LEAST_COVERED = 0.55
_OTHER_TYPE = 0.4
# Costs of a neighbour as the value, in heights of the key.
_OTHER_DIRECTION = 3.0
_UPWARDS = 4.0
_ANOTHER_KEY = 6.0
_FARTHEST_BELOW = 2.5
_PER_HEIGHT_RIGHT = 0.1


def answer_from_text(question: str, boxes: Sequence[TextBox]) -> str:
    """Answer a question about a page from its texts.

    Args:
        question: The question.
        boxes: The texts with their boxes, in any order.

    Returns:
        A text of the page, or `pages.ABSENT` if nothing on the page matches the question.
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
    """Rank a text as the key: by its match with the question, less if its value is of another type."""
    score = key_score(wanted, box)
    if score >= _LEAST and wanted.kind:
        value = _value(wanted, box, texts)
        score -= _OTHER_TYPE * (value is None or wanted.misfit(value.text) > 0)
    return round(score, 3), box.is_key


def _after_key(wanted: Wanted, box: TextBox) -> str:
    """Return what follows the words of the question in the same box, or "" if the box does not start with them."""
    words = box.text.split()
    number = 0
    while number < len(words) and _of_key(wanted, replace(box, text=words[number])):
        number += 1
    return " ".join(words[number:]) if number else ""


def _of_key(wanted: Wanted, word: TextBox) -> bool:
    """Return whether a word belongs to the question, or means nothing by itself."""
    names = words_of(word)
    return _all_asked(wanted, word) or (not _has_digit(word) and all(name in WEAK for name in names))


def _cell(wanted: Wanted, texts: Sequence[TextBox], single: float) -> TextBox | None:
    """Return the cell of a row and a column that together match the question better than any single text."""
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
    """Return the cost of a text as the value of a key by its position, or None if it cannot be the value."""
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
    """Return whether texts without digits have one with digits beside them more often than below them."""
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
    """Return the label of the largest or smallest number of a chart."""
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
