"""Effects on the pixels of a page that leave everything in its place; uint8 [H, W, 3] in and out, seeded, fast."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

_BANK = 1024  # side of the noise bank; larger pages repeat it


@lru_cache(maxsize=1)
def _bank() -> np.ndarray:
    """Grain of unit spread times 16, int16 [_BANK, _BANK]: fine grain with a little coarse in it."""
    rng = np.random.default_rng(20261129)
    fine = rng.standard_normal((_BANK, _BANK))
    coarse = rng.standard_normal((_BANK // 3 + 1, _BANK // 3 + 1)).repeat(3, 0).repeat(3, 1)[:_BANK, :_BANK]
    return np.round((0.85 * fine + 0.45 * coarse) * 16).astype(np.int16)


def _grain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A window of the bank, int16 [H, W]."""
    top, left = rng.integers(0, _BANK, 2).tolist()
    rows, columns = np.arange(top, top + height) % _BANK, np.arange(left, left + width) % _BANK
    return _bank()[rows[:, None], columns[None, :]]


def _field(rng: np.random.Generator, height: int, width: int, cells: int = 4) -> np.ndarray:
    """A smooth field between 0 and 1, float32 [H, W]."""
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return smooth / 255


def blur(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Blur by a radius that grows with the letters."""
    radius = float(rng.uniform(0.03, 0.09)) * x_height
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def motion(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Smear along one direction, as a hand that shakes does."""
    steps = max(2, round(float(rng.uniform(0.1, 0.25)) * x_height))
    axis = int(rng.integers(0, 2))
    total = np.zeros(image.shape, np.uint16)
    for step in range(steps):
        total += np.roll(image, step - steps // 2, axis)
    return (total // steps).astype(np.uint8)


def grain(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Add a sensor's noise."""
    shift = (_grain(rng, *image.shape[:2]) * np.int16(rng.integers(2, 14))) >> 4
    pixels = image.astype(np.int16)
    pixels += shift[..., None]
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def jpeg(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Compress as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(28, 85)))
    return np.array(Image.open(buffer))


def shadow(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Light the page unevenly: a smooth field, or the edge of a hand's shadow."""
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        light = 1 - float(rng.uniform(0.15, 0.5)) * _field(rng, height, width, int(rng.integers(2, 5)))
    else:
        angle, soft = rng.uniform(0, 2 * np.pi), float(rng.uniform(0.03, 0.3))
        across = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(np.cos(angle))
        down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
        edge = np.clip((across + down - np.float32(rng.uniform(-0.5, 0.6))) / soft, 0, 1)
        light = 1 - float(rng.uniform(0.15, 0.45)) * edge
    share = (light * 256).astype(np.uint16)
    return ((image * share[..., None]) >> 8).astype(np.uint8)


def low_contrast(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Bring ink and paper nearer to each other."""
    low, high = float(rng.uniform(20, 115)), float(rng.uniform(185, 250))
    table = np.linspace(low, high, 256).astype(np.uint8)
    return table[image]


def coloured_paper(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Print on tinted paper."""
    tint = np.array(rng.uniform((0.82, 0.8, 0.62), (1.0, 1.0, 1.0)), np.float32)
    if rng.random() < 0.3:
        tint = tint[::-1].copy()
    tables = (np.arange(256, dtype=np.float32)[:, None] * tint).astype(np.uint8)
    return np.stack([tables[image[..., c], c] for c in range(3)], -1)


def colour_cast(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Shift the colours, as lamps and white balance do."""
    warm, green = float(rng.uniform(-0.1, 0.12)), float(rng.uniform(-0.03, 0.03))
    gain = np.array([1 + warm, 1 + green, 1 - warm], np.float32) * float(rng.uniform(0.85, 1.0))
    tables = np.clip(np.arange(256, dtype=np.float32)[:, None] * gain, 0, 255).astype(np.uint8)
    return np.stack([tables[image[..., c], c] for c in range(3)], -1)


def grey(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Drop the colours."""
    return np.array(Image.fromarray(image).convert("L").convert("RGB"))


def bleed_through(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Let the back of the sheet show through: the page itself, mirrored and faint."""
    strength = float(rng.uniform(0.05, 0.2))
    back = image[:, ::-1].min(-1)
    back = np.roll(back, (int(rng.integers(-80, 80)), int(rng.integers(-80, 80))), (0, 1))
    small = Image.fromarray(back).filter(ImageFilter.BoxBlur(0.12 * x_height))
    dark = ((255 - np.asarray(small, np.uint16)) * np.uint16(256 * strength)) >> 8
    return np.clip(image.astype(np.int16) - dark[..., None].astype(np.int16), 0, 255).astype(np.uint8)


def _threshold(rng: np.random.Generator, shades: np.ndarray) -> int:
    """Draw a threshold between ink and paper, wherever these lie."""
    low, high = np.percentile(shades[::4, ::4], (0.5, 95))
    return int(low + (high - low) * rng.uniform(0.45, 0.75))


def one_bit(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Reduce to black and white at a threshold, with some grain before it, or by dots."""
    plain = Image.fromarray(image).convert("L")
    if rng.random() < 0.25:
        return np.array(plain.convert("1").convert("RGB"))
    shade = np.asarray(plain, np.int16) + ((_grain(rng, *image.shape[:2]) * np.int16(rng.integers(0, 14))) >> 4)
    return np.repeat((shade > _threshold(rng, np.asarray(plain)))[..., None], 3, -1).astype(np.uint8) * 255


def fax(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Send by fax: few and oblong pixels, black and white, lines lost or doubled."""
    height, width = image.shape[:2]
    # At an x-height of 6 pixels and more letters can still be told apart.
    share = float(np.clip(rng.uniform(6, 9) / x_height, 0.3, 1.0))
    small = (
        Image.fromarray(image)
        .convert("L")
        .resize(
            (max(1, int(width * share)), max(1, int(height * share * rng.choice((1.0, 0.8))))), Image.Resampling.BOX
        )
    )
    pixels = (np.asarray(small) > _threshold(rng, np.asarray(small))).astype(np.uint8) * 255
    for row in rng.integers(0, len(pixels), int(rng.integers(0, 5))).tolist():
        if rng.random() < 0.5:
            pixels[row] = pixels[row - 1]
        else:
            start = int(rng.integers(0, pixels.shape[1]))
            pixels[row, start : start + int(rng.integers(10, 200))] = 0
    back = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST if rng.random() < 0.5 else 2)
    return np.array(back.convert("RGB"))


def specks(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Put specks of dirt on the glass."""
    height, width = image.shape[:2]
    pixels = image.copy()
    for _ in range(int(rng.integers(5, 120))):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        size = int(rng.integers(1, max(2, int(0.25 * x_height))))
        pixels[y : y + size, x : x + size] = int(rng.integers(0, 120))
    return pixels


def fold(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Crease the sheet once or twice, across or down."""
    pixels = image.astype(np.uint16)
    for _ in range(int(rng.integers(1, 3))):
        axis = int(rng.integers(0, 2))
        length = image.shape[axis]
        at, wide = float(rng.uniform(0.25, 0.75)) * length, float(rng.uniform(0.15, 0.5)) * x_height
        distance = (np.arange(length, dtype=np.float32) - at) / wide
        line = 1 - float(rng.uniform(0.1, 0.35)) * np.exp(-(distance**2)) - 0.05 * (distance > 0)
        share = (np.clip(line, 0, 1) * 256).astype(np.uint16)
        pixels = (pixels * share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))) >> 8
    return pixels.astype(np.uint8)


def edges(rng: np.random.Generator, image: np.ndarray, x_height: float) -> np.ndarray:
    """Darken a border, as the lid of a copier that was left open does, and punch holes."""
    height, width = image.shape[:2]
    pixels = image.copy()
    for side in range(4):
        if rng.random() < 0.4:
            band = int(rng.uniform(0.003, 0.012) * min(height, width)) + 1
            view = (pixels[:band], pixels[-band:], pixels[:, :band], pixels[:, -band:])[side]
            view[...] = int(rng.integers(0, 90))
    if rng.random() < 0.3:
        radius = int(0.012 * height)
        rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        disc = rows**2 + columns**2 <= radius**2
        for share in (0.36, 0.64):
            y, x = int(share * height), 3 * radius
            part = pixels[y - radius : y + radius + 1, x - radius : x + radius + 1]
            if part.shape[:2] == disc.shape:
                part[disc] = int(rng.integers(20, 110))
    return pixels
