"""Where the model looked: tiles and kept local tokens over the picture, as a heat map of the selector's scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slime_vlm.model.tiling import TileGrid

# Long side of the drawn picture, and the least short side: thinner pictures are stretched to be visible at all.
_LONG_SIDE = (900, 1800)
_SHORT_SIDE = 96

# From low to high score; all light enough that dark print stays readable under the tint.
_SCALE = np.array([(255, 244, 170), (255, 213, 79), (255, 152, 0), (240, 84, 30), (214, 24, 70)], np.float32)
_TINT = (0.35, 0.60)
# Grey that dropped regions are mixed with.
_DROPPED = 150
_INK, _PAPER, _MUTED, _LINE = (28, 31, 38), (250, 250, 247), (110, 114, 122), (38, 110, 190)


@dataclass(frozen=True)
class LocalSelection:
    """Which local tokens of one picture were kept, and how the selector scored them.

    Attributes:
        grid: the picture's tiles.
        tile_side: tokens along one side of a tile.
        kept: bool [L], over the local tokens in picture order (row by row over the whole picture).
        scores: float [L] in the same order, None where nothing was scored.
    """

    grid: TileGrid
    tile_side: int
    kept: np.ndarray
    scores: np.ndarray | None = None


def draw_overlay(image: Image.Image, selection: LocalSelection, question: str, answer: str) -> Image.Image:
    """Draws tile borders and the kept tokens over a picture, with the question and answer in a strip below.

    What was dropped is dimmed; kept tokens are tinted from pale yellow (low score) to red (high score). Tokens that lie
    wholly on the black border of the canvas have no place on the picture and are left out of the drawing.

    Args:
        image: the RGB picture that was asked about.
        selection: its tokens.
        question: the question, for the caption.
        answer: the answer, for the caption.

    Raises:
        ValueError: `kept` or `scores` does not have one value for each local token of the grid.
    """
    grid, side = selection.grid, selection.tile_side
    expected = grid.num_tiles * side * side
    for name, values in (("kept", selection.kept), ("scores", selection.scores)):
        if values is not None and values.shape != (expected,):
            raise ValueError(
                f"{name} has shape {values.shape}, expected ({expected},) for {grid.rows} x {grid.cols} tiles"
            )
    height, width = _drawn_size(image.height, image.width)
    base = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    pixels = _paint(base, selection) if expected else base
    drawn = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    if expected:
        _draw_tile_borders(drawn, grid)
    return _with_caption(drawn, selection, question, answer)


def _drawn_size(height: int, width: int) -> tuple[int, int]:
    longest = max(height, width)
    scale = min(max(longest, _LONG_SIDE[0]), _LONG_SIDE[1]) / longest
    return max(round(height * scale), _SHORT_SIDE), max(round(width * scale), _SHORT_SIDE)


def _paint(base: np.ndarray, selection: LocalSelection) -> np.ndarray:
    """Dims what was dropped and tints what was kept: base [h, w, 3] -> [h, w, 3]."""
    grid, side = selection.grid, selection.tile_side
    height, width = base.shape[:2]
    # The token under every drawn row and column, through the scaled picture's place on the canvas.
    token = grid.view_size / side
    rows = np.floor((grid.top + (np.arange(height) + 0.5) * grid.scaled_height / height) / token).astype(int)
    cols = np.floor((grid.left + (np.arange(width) + 0.5) * grid.scaled_width / width) / token).astype(int)
    under = rows[:, None] * (grid.cols * side) + cols[None, :]

    strength = _strength(selection)
    tint = (_TINT[0] + (_TINT[1] - _TINT[0]) * strength)[under][..., None]
    colours = _colours(strength)[under]
    kept = selection.kept[under][..., None]
    # Multiplying keeps dark print readable on light pages; a dark picture shows a tint only when it is mixed in.
    mixed = np.interp(base.mean(), [60, 160], [0.8, 0.3])
    tinted = (1 - mixed) * base * (1 - tint + tint * colours / 255) + mixed * (base * (1 - tint) + colours * tint)
    dimmed = 0.45 * base.mean(axis=-1, keepdims=True) + 0.55 * _DROPPED
    return np.where(kept, tinted, dimmed)


def _colours(strength: np.ndarray) -> np.ndarray:
    """Looks values [L] between 0 and 1 up in the colour scale: float [L, 3]."""
    steps = strength * (len(_SCALE) - 1)
    return np.stack([np.interp(steps, range(len(_SCALE)), _SCALE[:, channel]) for channel in range(3)], axis=-1)


def _strength(selection: LocalSelection) -> np.ndarray:
    """Places the scores of the kept tokens between 0 and 1, float [L]; one half everywhere when there are none."""
    middle = np.full(selection.kept.shape, 0.5, np.float32)
    if selection.scores is None or not selection.kept.any():
        return middle
    kept = selection.scores[selection.kept].astype(np.float32)
    # Percentiles, so that one outlier does not wash out the rest of the map.
    low, high = np.percentile(kept, [2, 98])
    if high - low < 1e-9:
        return middle
    return ((selection.scores.astype(np.float32) - low) / (high - low)).clip(0, 1)


def _draw_tile_borders(drawn: Image.Image, grid: TileGrid) -> None:
    draw = ImageDraw.Draw(drawn, "RGBA")
    width, height = drawn.size
    thick = max(2, max(width, height) // 600)
    line = (*_LINE, 190)
    for row in range(1, grid.rows):
        y = (row * grid.view_size - grid.top) * height / grid.scaled_height
        if 0 < y < height:
            draw.line([(0, y), (width, y)], fill=line, width=thick)
    for col in range(1, grid.cols):
        x = (col * grid.view_size - grid.left) * width / grid.scaled_width
        if 0 < x < width:
            draw.line([(x, 0), (x, height)], fill=line, width=thick)
    draw.rectangle([(0, 0), (width - 1, height - 1)], outline=line, width=thick)


def _with_caption(drawn: Image.Image, selection: LocalSelection, question: str, answer: str) -> Image.Image:
    """Adds the strip with question, answer, counts and colour scale below the picture."""
    size = max(16, min(34, max(drawn.size) // 48))
    margin = size
    width = max(drawn.width, 26 * size)
    room = width - 2 * margin
    lines = [
        *((line, _font(size, line), _MUTED) for line in _wrapped(question, size, room)),
        *((line, _font(round(size * 1.35), line), _INK) for line in _wrapped(answer, round(size * 1.35), room)),
    ]
    small = round(size * 0.8)
    heights = [round(font.size * 1.35) for _, font, _ in lines]
    strip = margin + sum(heights) + round(small * 2.2) + margin // 2

    canvas = Image.new("RGB", (width, drawn.height + strip), _PAPER)
    canvas.paste(drawn, ((width - drawn.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    y = drawn.height + margin // 2
    for (line, font, colour), step in zip(lines, heights, strict=True):
        draw.text((margin, y), line, font=font, fill=colour)
        y += step
    y += small // 2
    _draw_footer(draw, selection, margin, y, room, small)
    return canvas


def _draw_footer(
    draw: ImageDraw.ImageDraw, selection: LocalSelection, left: int, top: int, room: int, size: int
) -> None:
    """Draws the counts on the left and the colour scale on the right."""
    total, kept = selection.kept.size, int(selection.kept.sum())
    grid = selection.grid
    counts = (
        f"{grid.rows} x {grid.cols} tiles, {kept} of {total} local tokens kept ({kept / total:.0%})"
        if total
        else "global view only, no local tokens"
    )
    font = _font(size, counts)
    draw.text((left, top), counts, font=font, fill=_MUTED)
    if selection.scores is None or not kept:
        return
    low, high = "low", "high score"
    bar = size * 6
    if draw.textlength(f"{counts}{low}{high}", font=font) + bar + 4 * size > room:
        return
    x = left + room - draw.textlength(high, font=font)
    draw.text((x, top), high, font=font, fill=_MUTED)
    x -= size // 2 + bar
    for step, colour in enumerate(_colours(np.linspace(0, 1, bar)).round().astype(int).tolist()):
        draw.line([(x + step, top + size // 5), (x + step, top + size)], fill=tuple(colour))
    draw.text((x - size // 2 - draw.textlength(low, font=font), top), low, font=font, fill=_MUTED)


def _wrapped(text: str, size: int, room: int, most: int = 4) -> list[str]:
    """Breaks a text into at most `most` lines that fit `room` pixels; the last one ends in an ellipsis when cut."""
    font = _font(size, text)
    lines: list[str] = []
    line = ""
    for word in text[:600].split():  # more never fits
        while font.getlength(word) > room:  # a word longer than the strip is cut wherever it must be
            fits = next(n for n in range(len(word), 0, -1) if font.getlength(word[:n]) <= room or n == 1)
            lines += [line, word[:fits]] if line else [word[:fits]]
            line, word = "", word[fits:]
        joined = f"{line} {word}".strip()
        if font.getlength(joined) <= room:
            line = joined
        else:
            lines.append(line)
            line = word
    lines += [line] if line else []
    shown = lines[:most]
    if len(lines) > most or len(text) > 600:
        shown[-1] = shown[-1][:-1] + "…"
    return shown


def _font(size: int, text: str) -> ImageFont.FreeTypeFont:
    """Pillow's own font; for text beyond Latin one with more letters, where the machine has it."""
    if any(ord(letter) > 0x24F for letter in text):
        for name in ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf"):
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
