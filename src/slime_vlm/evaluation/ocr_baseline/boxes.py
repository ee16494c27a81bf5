"""Texts on a page with their boxes, and their relative positions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

# Matches "Total: 12.50", but neither "10:30" nor "S: 1" within a word. OCR often loses the space.
_COLON = re.compile(r"(?<=[A-Za-z.#)/ ])\s*[:\uff1a]\s*(?=\S)")
_LEADERS = re.compile(r"\s*(?:\.{3,}|…+|_{3,}|(?:[.·] ){3,})\s*")


# Matches "Shipping 861.21" in one box, but not "Mar 11, 23".
_WORDS_THEN_NUMBER = re.compile(r"(?<=[A-Za-z.#]{2})\s+(?=[$€£]?\d)")
_MONTH = re.compile(r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?", re.IGNORECASE)
# Largest gap between words in heights of a line. Columns are farther apart.
_WORD_GAP = 0.35


@dataclass(frozen=True)
class TextBox:
    """A text with its box in pixels.

    Attributes:
        text: The text.
        left: Left edge.
        top: Upper edge.
        right: Right edge.
        bottom: Lower edge.
        is_key: Whether a colon or a leader after the text announces a value.
    """

    text: str
    left: float
    top: float
    right: float
    bottom: float
    is_key: bool = False

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.bottom - self.top

    def on_line_with(self, other: TextBox) -> bool:
        """Return whether at least half of the lower box is beside the other one."""
        overlap = min(self.bottom, other.bottom) - max(self.top, other.top)
        return overlap > 0.5 * min(self.height, other.height)

    def in_column_with(self, other: TextBox) -> bool:
        """Return whether one box is above or below the other."""
        return min(self.right, other.right) > max(self.left, other.left)

    def off_axis(self, other: TextBox) -> float:
        """Return the distance of the left edges, the right edges or the centres, whichever is smallest."""
        left, right = self.left - other.left, self.right - other.right
        return min(abs(left), abs(right), abs(left + right) / 2)


def split_boxes(boxes: Iterable[TextBox]) -> list[TextBox]:
    """Join boxes that belong together, and split boxes that hold a key and its value.

    Positions within a box are estimated from the number of characters.
    """
    pieces = []
    for box in _joined(boxes):
        found = _COLON.search(box.text) or _LEADERS.search(box.text) or _number_after_words(box.text)
        if found is None or not box.text[: found.start()].strip() or not box.text[found.end() :].strip():
            text = box.text.strip()
            plain = (
                text.rstrip(":\uff1a").rstrip() if _LEADERS.search(text) is None else _LEADERS.sub(" ", text).strip()
            )
            pieces.append(replace(box, text=plain, is_key=plain != text))
            continue
        width = (box.right - box.left) / len(box.text)
        cut, go_on = box.left + found.start() * width, box.left + found.end() * width
        pieces.append(replace(box, text=box.text[: found.start()].strip(), right=cut, is_key=True))
        pieces.append(replace(box, text=box.text[found.end() :].strip(), left=go_on))
    return [piece for piece in pieces if piece.text]


def _number_after_words(text: str) -> re.Match[str] | None:
    found = _WORDS_THEN_NUMBER.search(text)
    before = text[: found.start()].strip() if found else ""
    return None if _MONTH.fullmatch(before) or any(map(str.isdigit, before)) else found


def _joined(boxes: Iterable[TextBox]) -> list[TextBox]:
    """Join boxes on one line that are no farther apart than words, such as a number and its unit."""
    joined: list[TextBox] = []
    for box in sorted(boxes, key=lambda box: box.left):
        before = next(
            (
                other
                for other in joined
                if other.on_line_with(box) and -0.3 <= (box.left - other.right) / max(box.height, 1.0) <= _WORD_GAP
            ),
            None,
        )
        if before is None:
            joined.append(box)
            continue
        joined.remove(before)
        top, bottom = min(before.top, box.top), max(before.bottom, box.bottom)
        joined.append(TextBox(f"{before.text} {box.text}", before.left, top, max(before.right, box.right), bottom))
    return joined
