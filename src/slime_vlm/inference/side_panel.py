"""The words beside a drawing: a column of texts, bars and a colour scale that fits any width and any text."""

from __future__ import annotations

import importlib.util
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, MUTED, PAPER = (28, 31, 38), (110, 114, 122), (250, 250, 247)
_TRACK = (224, 224, 219)
_LINE_STEP = 1.32
# Beyond Latin, and yet in Pillow's own font.
_PUNCTUATION = "‘’“”…"  # noqa: RUF001


@dataclass(frozen=True)
class Words:
    """A text of at most `most` lines; sizes are in units of the column's letter size.

    Attributes:
        text: the text; line breaks in it are kept.
        size: size of its letters.
        colour: its colour.
        most: lines that are shown; a longer text ends in an ellipsis.
        above: room above it.
    """

    text: str
    size: float
    colour: tuple[int, int, int]
    most: int = 3
    above: float = 0.0


@dataclass(frozen=True)
class Share:
    """A bar that is filled to a share between 0 and 1."""

    share: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Scale:
    """A colour scale, uint8 [n, 3] from low to high, with a word at either end and a line below."""

    colours: np.ndarray
    low: str
    high: str
    below: str


class Column:
    """A column of parts, laid out for a width.

    Args:
        parts: what it shows, from top to bottom.
        size: letter size in pixels.
        width: its width in pixels.
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
                lines = wrapped(part.text, round(part.size * size), width, part.most)
            self._placed.append((round(y), part, lines))
            y += self._height_of(part, lines)
        self.height = round(y)

    def _height_of(self, part: Words | Share | Scale, lines: list[str]) -> float:
        if isinstance(part, Words):
            return len(lines) * _LINE_STEP * part.size * self._size
        return self._size * (0.9 if isinstance(part, Share) else 3.5)

    def draw(self, canvas: Image.Image, left: int, top: int) -> None:
        """Draws the column with its upper left corner at (left, top)."""
        draw = ImageDraw.Draw(canvas)
        for y, part, lines in self._placed:
            if isinstance(part, Words):
                for number, line in enumerate(lines):
                    step = round(number * _LINE_STEP * part.size * self._size)
                    font = font_for(round(part.size * self._size), line)
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


def wrapped(text: str, size: int, room: int, most: int) -> list[str]:
    """Breaks a text into at most `most` lines that fit `room` pixels; the last one ends in an ellipsis when cut.

    Args:
        text: any text; line breaks in it are kept, empty lines are not.
        size: size of the letters in pixels.
        room: width in pixels.
        most: largest number of lines.
    """
    font = font_for(size, text)
    lines: list[str] = []
    # What cannot fit need not be measured: no letter is narrower than a sixth of its height.
    shown = text[: most * 6 * (room // size + 1)]
    for paragraph in shown.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= room:
                line = joined
                continue
            lines += [line] if line else []
            line = word
            while font.getlength(line) > room and len(lines) <= most:
                # A word longer than a line is cut wherever it must be.
                fits = max(1, bisect_right(range(1, len(line)), room, key=partial(_length, font, line)))
                lines.append(line[:fits])
                line = line[fits:]
            if len(lines) > most:
                break
        lines += [line] if line else []
    if len(lines) <= most and len(shown) == len(text):
        return lines
    lines = lines[:most]
    last = lines[-1]
    while last and font.getlength(f"{last}…") > room:
        last = last[:-1]
    return [*lines[:-1], f"{last}…"]


def _length(font: ImageFont.FreeTypeFont, text: str, letters: int) -> int:
    return math.ceil(font.getlength(text[:letters]))


@cache
def _matplotlib_fonts() -> tuple[str, ...]:
    """The font that Matplotlib brings along, where it is installed; it need not be imported for that."""
    found = importlib.util.find_spec("matplotlib")
    folders = (found.submodule_search_locations or []) if found else []
    return tuple(str(Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")) for folder in folders)


def font_for(size: int, text: str) -> ImageFont.FreeTypeFont:
    """Pillow's own font; for text beyond Latin one with more letters, where the machine has it."""
    if any(ord(letter) > 0x24F and letter not in _PUNCTUATION for letter in text):
        for name in (*_matplotlib_fonts(), "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf"):
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
