"""OCRBench v2: text with its place, by the end-to-end rule of the RRC portal (IoU over 0.5, words equal)."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from slime_vlm.evaluation.metrics.ocrbench_v2 import box_overlap

Spotted = tuple[tuple[int, int, int, int], str]
"""A box (left, top, right, bottom) and its text."""

_ITEM = re.compile(r"[\[(]\s*([^\[\]()]*?)\s*[\])]")
_QUOTED = re.compile(r'\s*"(.*)"\s*')
_LARGEST_COORDINATE = 1000
_LEAST_OVERLAP = 0.5
_UNREADABLE = "###"
# May be missing at the start or the end of a right text.
_OUTER = "!?.:,*\"()·[]/'"


def spotting_match(prediction: str, boxes: Sequence[Sequence[Any]], texts: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall of the stated boxes with their texts.

    A stated box is right if it is the first to overlap a box that has no partner yet by more than half, and their
    texts are equal but for case and one outer punctuation mark on either side. Boxes whose text is `###` do not
    count, and neither do stated ones that lie in them by more than half.

    Args:
        prediction: The answer, such as `[(left, top, right, bottom, "text"), …]`, with coordinates of 0 to 1000.
        boxes: Right boxes, as points `[x1, y1, x2, y2, …]`. Their bounding boxes count.
        texts: The text in each.
    """
    given = [(box, _unquoted(text)) for box, text in stated_texts(prediction) if box[0] < box[2] and box[1] < box[3]]
    wanted = [(_bounds(box), _unquoted(text)) for box, text in zip(boxes, texts, strict=True)]
    unread = [box for box, text in wanted if text == _UNREADABLE]
    wanted = [one for one in wanted if one[1] != _UNREADABLE]
    given = [one for one in given if not any(_share_within(one[0], box) > _LEAST_OVERLAP for box in unread)]
    right, free = 0, list(range(len(given)))
    for box, text in wanted:
        partner = next((index for index in free if box_overlap(box, given[index][0]) > _LEAST_OVERLAP), None)
        if partner is not None:
            free.remove(partner)
            right += _same(text.upper(), given[partner][1].upper())
    return 2 * right / (len(wanted) + len(given)) if right else 0.0


def stated_texts(prediction: str) -> list[Spotted]:
    """Return the boxes and texts of a prediction, each once: a Python literal, else whatever stands in brackets."""
    literal: Any = None
    try:
        with warnings.catch_warnings():
            # Silence the warnings that Python gives for odd source code.
            warnings.simplefilter("ignore")
            literal = ast.literal_eval(prediction)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        pass
    items: Iterable[Any]
    if literal is None:
        items = (item.split(",", 4) for item in _ITEM.findall(prediction))
    else:
        items = literal if isinstance(literal, list | tuple) else ()
    found: dict[Spotted, None] = {}
    for item in items:
        if not isinstance(item, list | tuple) or len(item) < 5:
            continue
        try:
            left, top, right, bottom = (int(str(value).strip()) for value in item[:4])
        except ValueError:
            continue
        if all(0 <= value <= _LARGEST_COORDINATE for value in (left, top, right, bottom)):
            text = str(item[4]).replace("\n", "").strip().strip('"').strip("'")
            found[(left, top, right, bottom), text] = None
    return list(found)


def _bounds(points: Sequence[Any]) -> tuple[int, int, int, int]:
    across, down = [int(value) for value in points[0::2]], [int(value) for value in points[1::2]]
    return min(across), min(down), max(across), max(down)


def _share_within(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Return the share of a box that lies in another one."""
    width = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    return width * height / ((box[2] - box[0]) * (box[3] - box[1]))


def _unquoted(text: str) -> str:
    text = text.replace("\r", "")
    quoted = _QUOTED.fullmatch(text)
    return quoted[1].replace("\\\\", "\\").replace('\\"', '"') if quoted else text


def _same(wanted: str, given: str) -> bool:
    starts = {wanted, wanted[1:]} if wanted[:1] and wanted[0] in _OUTER else {wanted}
    ends = {one[:-1] for one in starts} if wanted[-1:] and wanted[-1] in _OUTER else set()
    return given in starts | ends
