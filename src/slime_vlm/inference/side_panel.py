"""The panel beside a drawing: a column of texts, bars and a colour scale that fits any width and any text."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slime_vlm.inference.fonts import font_for

INK, MUTED, PAPER = (28, 31, 38), (110, 114, 122), (250, 250, 247)
_TRACK = (224, 224, 219)
_LINE_STEP = 1.32


@dataclass(frozen=True)
class Words:
    """A text of at most `max_lines` lines. Sizes are in units of the column's letter size.

    Attributes:
        text: The text. Its line breaks are kept.
        size: Size of the letters.
        colour: Colour of the letters.
        max_lines: Maximum number of lines. A longer text ends in an ellipsis.
        above: Space above the text.
    """

    text: str
    size: float
    colour: tuple[int, int, int]
    max_lines: int = 3
    above: float = 0.0


@dataclass(frozen=True)
class Share:
    """A bar that is filled up to a share between 0 and 1."""

    share: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Scale:
    """A colour scale, uint8 [n, 3] from low to high, with a word at either end and a line below it."""

    colours: np.ndarray
    low: str
    high: str
    below: str


class Column:
    """A column of parts, laid out for a width.

    Args:
        parts: The parts of the column, from top to bottom.
        size: Letter size in pixels.
        width: Width in pixels.
    """

    def __init__(self, parts: Sequence[Words | Share | Scale], size: int, width: int) -> None:
        self.width = width
        self._size = size
        self._placed: list[tuple[int, Words | Share | Scale, list[str]]] = []
        y = 0.0
        for part in parts:
            lines: list[str] = []
            if isinstance(part, Words):
                y += part.above * size if self._placed else 0
                lines = wrapped(part.text, round(part.size * size), width, part.max_lines)
            self._placed.append((round(y), part, lines))
            y += self._height_of(part, lines)
        self.height = round(y)

    def _height_of(self, part: Words | Share | Scale, lines: list[str]) -> float:
        if isinstance(part, Words):
            return len(lines) * _LINE_STEP * part.size * self._size
        return self._size * (0.9 if isinstance(part, Share) else 3.5)

    def draw(self, canvas: Image.Image, left: int, top: int) -> None:
        """Draw the column with its upper left corner at (left, top)."""
        draw = ImageDraw.Draw(canvas)
        for y, part, lines in self._placed:
            if isinstance(part, Words):
                for number, line in enumerate(lines):
                    step = round(number * _LINE_STEP * part.size * self._size)
                    font = font_for(round(part.size * self._size), part.text)
                    draw.text((left, top + y + step), line, font=font, fill=part.colour)
            elif isinstance(part, Share):
                self._draw_share(draw, part, left, top + y)
            else:
                self._draw_scale(canvas, part, left, top + y)

    def _draw_share(self, draw: ImageDraw.ImageDraw, part: Share, left: int, top: int) -> None:
        high = max(4, self._size // 3)
        top += self._size // 6
        draw.rectangle([left, top, left + self.width - 1, top + high], fill=_TRACK)
        filled = round(self.width * part.share)
        if filled:
            draw.rectangle([left, top, left + filled - 1, top + high], fill=part.colour)

    def _draw_scale(self, canvas: Image.Image, part: Scale, left: int, top: int) -> None:
        top += round(0.7 * self._size)
        bar = Image.fromarray(part.colours[None].astype(np.uint8)).resize((self.width, max(6, self._size // 2)))
        canvas.paste(bar, (left, top))
        draw = ImageDraw.Draw(canvas)
        font = font_for(round(self._size * 0.75), part.low + part.high)
        top += bar.height + self._size // 5
        draw.text((left, top), part.low, font=font, fill=MUTED)
        draw.text((left + self.width - draw.textlength(part.high, font=font), top), part.high, font=font, fill=MUTED)
        draw.text((left, top + round(self._size * 1.0)), part.below, font=font, fill=MUTED)


def wrapped(text: str, size: int, width: int, max_lines: int) -> list[str]:
    """Break a text into at most `max_lines` lines of `width` pixels. If it is cut, the last line ends in an ellipsis.

    Args:
        text: Any text. Its line breaks are kept, empty lines are not.
        size: Size of the letters in pixels.
        width: Width in pixels.
        max_lines: Maximum number of lines.
    """
    font = font_for(size, text)
    lines: list[str] = []
    # Text that cannot fit is not measured: no letter is narrower than a sixth of its height.
    shown = text[: max_lines * 6 * (width // size + 1)]
    for paragraph in shown.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width:
                line = joined
                continue
            lines += [line] if line else []
            line = word
            while font.getlength(line) > width and len(lines) <= max_lines:
                # A word that is longer than a line is cut anywhere.
                fits = max(1, bisect_right(range(1, len(line)), width, key=partial(_length, font, line)))
                lines.append(line[:fits])
                line = line[fits:]
            if len(lines) > max_lines:
                break
        lines += [line] if line else []
    if len(lines) <= max_lines and len(shown) == len(text):
        return lines
    lines = lines[:max_lines]
    last = lines[-1]
    while last and font.getlength(f"{last}…") > width:
        last = last[:-1]
    return [*lines[:-1], f"{last}…"]


def _length(font: ImageFont.FreeTypeFont, text: str, letters: int) -> int:
    return math.ceil(font.getlength(text[:letters]))
