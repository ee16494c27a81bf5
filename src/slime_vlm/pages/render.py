"""Draw a page: shapes, then text from cached glyphs, then light scan noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from slime_vlm.pages.fonts import glyph
from slime_vlm.pages.page import Drawing, Page, Run, TextStyle

_BANK = 1024  # side of the noise bank; pages larger than it repeat it


def render(page: Page) -> np.ndarray:
    """Draw a page.

    Returns:
        uint8 [height, width, 3].
    """
    canvas = Image.new("RGB", (page.width, page.height), page.paper)
    pen = ImageDraw.Draw(canvas)
    for drawing in page.drawings:
        _draw(pen, drawing)
    rng = np.random.default_rng(page.seed)
    pixels = np.array(canvas)
    for run, style in zip(page.runs, page.styles, strict=True):
        _write(pixels, run, style)
    return _scan(pixels, page.noise, rng) if page.noise > 0 else pixels


def _draw(pen: ImageDraw.ImageDraw, drawing: Drawing) -> None:
    points = [(round(x), round(y)) for x, y in drawing.points]
    if drawing.shape == "line":
        pen.line(points, fill=drawing.outline, width=drawing.width, joint="curve")
    elif drawing.shape == "rectangle":
        pen.rectangle(points, fill=drawing.fill, outline=drawing.outline, width=drawing.width)
    elif drawing.shape == "ellipse":
        pen.ellipse(points, fill=drawing.fill, outline=drawing.outline, width=drawing.width)
    else:
        pen.polygon(points, fill=drawing.fill, outline=drawing.outline, width=drawing.width)


def _write(pixels: np.ndarray, run: Run, style: TextStyle) -> None:
    """Blend one run into the page. Glyphs are placed at whole pixels."""
    height, width, _ = pixels.shape
    boxes = run.boxes
    pad = style.size // 3 + 2  # italics and serifs reach out of their advance
    x0, x1 = max(0, int(boxes[0, 0]) - pad), min(width, int(boxes[-1, 2]) + pad + 1)
    y0, y1 = max(0, style.baseline - style.size - pad), min(height, style.baseline + style.size // 2 + pad)
    if x1 <= x0 or y1 <= y0:
        return
    cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
    for character, left, right in zip(run.text, boxes[:, 0].tolist(), boxes[:, 2].tolist(), strict=True):
        if character == " ":
            continue
        mask, down, across, advance = glyph(style.font, style.size, character)
        # A glyph narrower than its box (the least advance of `Sheet`) is centred in it.
        x = round(left + (right - left - advance) / 2) + across - x0
        y = style.baseline + down - y0
        h, w = mask.shape
        top, side = max(0, y), max(0, x)
        part = cover[top : y + h, side : x + w]
        np.maximum(part, mask[top - y : top - y + part.shape[0], side - x : side - x + part.shape[1]], out=part)
    region = pixels[y0:y1, x0:x1]
    alpha = cover.astype(np.int32)[..., None]
    ink = np.array(style.colour, np.int32)
    # (255 - a) * paper + a * ink, divided by 255 with rounding.
    blend = region * (255 - alpha) + ink * alpha + 127
    region[...] = blend // 255


@lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    """Return grain of unit spread times 16, int16 [_BANK, _BANK]: pixel noise and JPEG-like speckle."""
    rng = np.random.default_rng(20240612)
    fine = rng.standard_normal((_BANK, _BANK))
    coarse = rng.standard_normal((_BANK // 4, _BANK // 4)).repeat(4, 0).repeat(4, 1)
    return np.round((0.8 * fine + 0.5 * coarse) * 16).astype(np.int16)


def _scan(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add light scan noise: blur and grain."""
    height, width, _ = pixels.shape
    draws = rng.random(5).tolist()
    if draws[0] < 0.3 * strength:
        # The radius grows with the page, so that the blur looks the same at every resolution.
        radius = (0.25 + 0.45 * draws[1]) * max(1.0, min(height, width) / 700)
        pixels = np.array(Image.fromarray(pixels).filter(ImageFilter.BoxBlur(radius)))
    top, left = int(draws[2] * _BANK), int(draws[3] * _BANK)
    bank = _noise_bank()
    grain = bank[top : top + height, left : left + width]
    if grain.shape != (height, width):  # the page reaches over the edge of the bank, which goes on from its other side
        grain = bank.take(range(top, top + height), 0, mode="wrap").take(range(left, left + width), 1, mode="wrap")
    level = int(strength * (0.2 + draws[4]) * 5 * 16)
    shift = (grain * np.int32(level)) >> 8
    noisy = pixels + shift[..., None]
    return np.clip(noisy, 0, 255).astype(np.uint8)
