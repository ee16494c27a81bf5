"""Draw tiles and kept local tokens over an image, as a heat map of the selector's scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from slime_vlm.inference.side_panel import INK, MUTED, PAPER, Column, Scale, Share, Words
from slime_vlm.media import Clip, OpenedInput, TiledImage
from slime_vlm.model.tiling import TileGrid
from slime_vlm.processing.banded_resize import RowBands

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Range of the long side of the drawing. Thinner drawings than the minimum of the short side are stretched.
_LONG_SIDE = (900, 1800)
_MIN_SHORT_SIDE = 96
# Ratio of width to height above which the text is below the image instead of beside it.
_WIDE = 1.5

# From low to high score. All colours are light, so that dark print stays readable under the tint.
_SCALE = np.array([(255, 244, 170), (255, 213, 79), (255, 152, 0), (240, 84, 30), (214, 24, 70)], np.float32)
_TINT = (0.35, 0.60)
# Grey that dropped regions are mixed with.
_DROPPED = 190
_LINE = (38, 110, 190)


@dataclass(frozen=True)
class LocalSelection:
    """The local tokens of one image that were kept, and the selector's scores.

    Attributes:
        grid: Tiles of the image.
        tile_side: Number of tokens along one side of a tile.
        kept: bool [L], True on kept local tokens, in image order: row by row over the whole image.
        scores: float [L] in image order. None if nothing was scored.
    """

    grid: TileGrid
    tile_side: int
    kept: np.ndarray
    scores: np.ndarray | None = None

    def check(self) -> None:
        """Check the number of values.

        Raises:
            ValueError: `kept` or `scores` does not have one value per local token of the grid.
        """
        grid = self.grid
        expected = grid.num_tiles * self.tile_side**2
        for name, values in (("kept", self.kept), ("scores", self.scores)):
            if values is not None and values.shape != (expected,):
                raise ValueError(
                    f"{name} has shape {values.shape}, expected ({expected},) for {grid.rows} x {grid.cols} tiles"
                )


def drawing_copy(image: OpenedInput, grid: TileGrid) -> Image.Image:
    """Copy an image at the size of a drawing, so that the original can be freed.

    Args:
        image: An image. A video becomes the sheet of its frames.
        grid: Its tiles.
    """
    if isinstance(image, TiledImage):
        scale = min(1.0, _LONG_SIDE[1] / max(image.size))
        height, width = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        return Image.fromarray(RowBands(image, height, width).rows(0, height))
    copy = image.sheet(grid.rows, grid.cols) if isinstance(image, Clip) else image.convert("RGB")
    copy.thumbnail((_LONG_SIDE[1], _LONG_SIDE[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return copy


def paint_selection(image: Image.Image, selection: LocalSelection) -> Image.Image:
    """Draw tile borders and kept tokens over an image.

    Dropped tokens are dimmed. Kept tokens are tinted from pale yellow (low score) to red (high score). Tokens that lie
    wholly on the black border of the canvas are outside the image and are not drawn.

    Args:
        image: The RGB image of the question, or a copy of any size.
        selection: Its tokens.

    Returns:
        A drawing whose long side has 900 to 1800 pixels.

    Raises:
        ValueError: `kept` or `scores` does not have one value per local token of the grid.
    """
    selection.check()
    height, width = _drawn_size(image.height, image.width)
    base = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    if not selection.kept.size:
        return base
    pixels = _paint(np.asarray(base, np.float32), selection)
    drawn = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    _draw_tile_borders(drawn, selection.grid)
    return drawn


def draw_overlay(
    image: Image.Image,
    selection: LocalSelection,
    question: str,
    answer: str,
    *,
    title: str = "",
    by: str = "",
    num_global: int | None = None,
) -> Image.Image:
    """Draw the kept tokens, with question, answer and token counts beside the image, or below a wide one.

    Args:
        image: See `paint_selection`.
        selection: See `paint_selection`.
        question: The question.
        answer: The answer. A very long one is cut with an ellipsis.
        title: A line above the question, such as the image's name.
        by: The question that the tokens were selected for. It is shown if it differs from `question`.
        num_global: Number of global tokens, to show beside the local ones.

    Raises:
        ValueError: See `paint_selection`.
    """
    drawn = paint_selection(image, selection)
    size = max(16, min(32, max(drawn.size) // 54))
    gap = round(size * 1.1)
    beside = drawn.width <= _WIDE * drawn.height
    width = 15 * size if beside else max(drawn.width, 30 * size)
    lines = max(8, drawn.height // (3 * size)) if beside else 8
    words = [Words(title, 0.8, MUTED, max_lines=1)] if title else []
    words += [Words("question", 0.7, MUTED, above=0.6), Words(question, 1.0, INK, max_lines=8)]
    words += [Words("answer", 0.7, MUTED, above=1.0), Words(answer or "(nothing)", 1.3, INK, max_lines=lines)]
    if by and by != question:
        words += [Words("tokens were selected for", 0.7, MUTED, above=1.0), Words(by, 0.9, INK, max_lines=4)]
    counts = _counts(selection, num_global)
    if beside:
        columns = [Column([*words, *counts], size, width)]
    else:
        right = max(15 * size, round(width * 0.3))
        columns = [Column(words, size, width - right - 2 * gap), Column(counts, size, right)]

    panel = max(column.height for column in columns)
    if beside:
        canvas = Image.new("RGB", (drawn.width + width + 3 * gap, max(drawn.height, panel) + 2 * gap), PAPER)
        x, y = drawn.width + 2 * gap, gap
    else:
        canvas = Image.new("RGB", (width + 2 * gap, drawn.height + panel + 3 * gap), PAPER)
        x, y = gap, drawn.height + 2 * gap
    canvas.paste(drawn, (gap, gap))
    for column in columns:
        column.draw(canvas, x, y)
        x += column.width + 2 * gap
    return canvas


def plot_selection(axes: Axes, image: Image.Image, selection: LocalSelection, *, colorbar: bool = True) -> None:
    """Draw the kept tokens on a Matplotlib axis, with their number as its title.

    Args:
        axes: The axis. Its ticks are removed.
        image: See `paint_selection`.
        selection: See `paint_selection`.
        colorbar: Whether to add a colour scale if there are scores.

    Raises:
        ValueError: See `paint_selection`.
    """
    drawn = paint_selection(image, selection)
    axes.imshow(np.asarray(drawn), interpolation="antialiased")
    axes.set_axis_off()
    axes.set_title(_summary(selection), fontsize="medium")
    if not colorbar or selection.scores is None or not selection.kept.any() or axes.figure is None:
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("kept", _SCALE / 255)
    low, high = _score_range(selection.scores[selection.kept])
    axes.figure.colorbar(ScalarMappable(Normalize(low, high), colours), ax=axes, label="score", shrink=0.7)


def _summary(selection: LocalSelection) -> str:
    total, kept = selection.kept.size, int(selection.kept.sum())
    if not total:
        return "global view only, no local tokens"
    return f"{kept:,} of {total:,} local tokens kept ({kept / total:.0%})"


def _counts(selection: LocalSelection, num_global: int | None) -> list[Words | Share | Scale]:
    """Return the parts of the side panel that describe the tokens."""
    grid, total, kept = selection.grid, selection.kept.size, int(selection.kept.sum())
    counts: list[Words | Share | Scale] = [Words("tokens", 0.7, MUTED, above=1.0), Words(_summary(selection), 0.9, INK)]
    if total:
        counts.append(Share(kept / total, _LINE))
    facts = f"{grid.rows} x {grid.cols} tiles"
    if num_global is not None:
        facts += f", {num_global:,} global tokens"
    counts.append(Words(facts, 0.9, INK))
    if selection.scores is not None and kept:
        colours = _colours(np.linspace(0, 1, 256)).round().astype(np.uint8)
        counts.append(Scale(colours, "low score", "high", "grey: dropped"))
    return counts


def _drawn_size(height: int, width: int) -> tuple[int, int]:
    longest = max(height, width)
    scale = min(max(longest, _LONG_SIDE[0]), _LONG_SIDE[1]) / longest
    return max(round(height * scale), _MIN_SHORT_SIDE), max(round(width * scale), _MIN_SHORT_SIDE)


def _paint(base: np.ndarray, selection: LocalSelection) -> np.ndarray:
    """Dim dropped tokens and tint kept ones: base [h, w, 3] -> [h, w, 3]."""
    grid, side = selection.grid, selection.tile_side
    height, width = base.shape[:2]
    # Token under every drawn row and column, by the position of the scaled image on the canvas.
    token = grid.tile_size / side
    rows = np.floor((grid.top + (np.arange(height) + 0.5) * grid.scaled_height / height) / token).astype(int)
    cols = np.floor((grid.left + (np.arange(width) + 0.5) * grid.scaled_width / width) / token).astype(int)
    under = rows[:, None] * (grid.cols * side) + cols[None, :]

    strength = _strength(selection)
    tint = (_TINT[0] + (_TINT[1] - _TINT[0]) * strength)[under][..., None]
    colours = _colours(strength)[under]
    kept = selection.kept[under][..., None]
    # Multiplying keeps dark print readable on light paper. A dark region shows a tint only when it is mixed in.
    mixed = np.interp(_brightness(base), [60, 160], [0.8, 0.3])[..., None]
    tinted = (1 - mixed) * base * (1 - tint + tint * colours / 255) + mixed * (base * (1 - tint) + colours * tint)
    dimmed = 0.4 * base.mean(axis=-1, keepdims=True) + 0.6 * _DROPPED
    return np.where(kept, tinted, dimmed)


def _brightness(base: np.ndarray) -> np.ndarray:
    """Return the brightness around every pixel, [h, w]. The neighbourhood is much larger than a letter."""
    height, width = base.shape[:2]
    grey = Image.fromarray(base.mean(axis=-1).round().astype(np.uint8))
    coarse = grey.resize((max(1, width // 40), max(1, height // 40)), Image.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _colours(strength: np.ndarray) -> np.ndarray:
    """Look up values [L] between 0 and 1 in the colour scale: float [L, 3]."""
    steps = strength * (len(_SCALE) - 1)
    return np.stack([np.interp(steps, range(len(_SCALE)), _SCALE[:, channel]) for channel in range(3)], axis=-1)


def _strength(selection: LocalSelection) -> np.ndarray:
    """Scale the scores to 0..1 by those of the kept tokens, float [L]. Without scores, one half everywhere."""
    middle = np.full(selection.kept.shape, 0.5, np.float32)
    if selection.scores is None or not selection.kept.any():
        return middle
    low, high = _score_range(selection.scores[selection.kept])
    if high - low < 1e-9:
        return middle
    return ((selection.scores.astype(np.float32) - low) / (high - low)).clip(0, 1)


def _score_range(kept: np.ndarray) -> tuple[float, float]:
    """Return the scores at the ends of the colour scale. Percentiles keep one outlier from taking the whole scale."""
    low, high = np.percentile(kept.astype(np.float32), [2, 98])
    return float(low), float(high)


def _draw_tile_borders(drawn: Image.Image, grid: TileGrid) -> None:
    draw = ImageDraw.Draw(drawn, "RGBA")
    width, height = drawn.size
    thick = max(2, max(width, height) // 600)
    line = (*_LINE, 190)
    for row in range(1, grid.rows):
        y = (row * grid.tile_size - grid.top) * height / grid.scaled_height
        if 0 < y < height:
            draw.line([(0, y), (width, y)], fill=line, width=thick)
    for col in range(1, grid.cols):
        x = (col * grid.tile_size - grid.left) * width / grid.scaled_width
        if 0 < x < width:
            draw.line([(x, 0), (x, height)], fill=line, width=thick)
    draw.rectangle([(0, 0), (width - 1, height - 1)], outline=line, width=thick)
