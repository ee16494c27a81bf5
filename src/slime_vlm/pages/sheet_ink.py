"""Text put on a sheet without pixels: characters with boxes, as wide as those of a sans serif face."""

from __future__ import annotations

import numpy as np

# Widths of characters as shares of the font size, about those of a sans serif face.
_WIDTHS = np.full(0x250, 0.54, np.float32)
for _width, _characters in (
    (0.28, "iIjl.,:;'|!"),
    (0.36, "frt()- /[]"),
    (0.85, "mwMW%&@"),
    (0.66, "ABCDEFGHKLNOPQRSTUVXYZ"),
):
    _WIDTHS[[ord(character) for character in _characters]] = _width


class Ink:
    """Collects printed text."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.texts: list[str] = []
        self.boxes: list[np.ndarray] = []
        self.lines: list[int] = []
        self.count = 0

    def width(self, text: str) -> float:
        """Return the width of a text in pixels."""
        return float(_WIDTHS[[min(ord(c), 0x24F) for c in text]].sum()) * self.size

    def put(self, x: float, y: float, text: str, goes_on: bool = False) -> tuple[float, np.ndarray]:
        """Print a text, a line or more of the last one; return where it ends, and the indices of its characters."""
        self.lines.append(self.lines[-1] if goes_on else self.lines[-1] + 1 if self.lines else 0)
        widths = _WIDTHS[np.array([min(ord(c), 0x24F) for c in text], int)] * self.size
        ends = x + np.cumsum(widths)
        starts = ends - widths
        tops = np.full(len(text), y)
        self.boxes.append(np.stack([starts, tops, ends, tops + 1.2 * self.size], 1).astype(np.float32))
        self.texts.append(text)
        indices = np.arange(self.count, self.count + len(text), dtype=np.int32)
        self.count += len(text)
        return x + float(widths.sum()), indices

    def add(self, other: Ink, x: float, y: float) -> tuple[int, float, float]:
        """Print what is on another sheet; return the index of its first character, its lower and its right edge."""
        start, first = self.count, self.lines[-1] + 1 if self.lines else 0
        self.texts += other.texts
        self.boxes += [boxes + np.array([x, y, x, y], np.float32) for boxes in other.boxes]
        self.lines += [line + first for line in other.lines]
        self.count += other.count
        moved = np.concatenate(self.boxes[-len(other.boxes) :])
        return start, float(moved[:, 3].max()), float(moved[:, 2].max())
