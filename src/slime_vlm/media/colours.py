"""Convert pixel values of any depth to 8 bits, and images of any mode to RGB."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageCms

from slime_vlm.errors import InputError

BAND_PIXELS = 1 << 20
"""Pixels that are converted at a time."""


@dataclass(frozen=True)
class Window:
    """The range of grey values to show: `center - width / 2` becomes black, `center + width / 2` white.

    Attributes:
        center: The value that becomes middle grey.
        width: The distance from black to white.
    """

    center: float
    width: float

    @classmethod
    def parse(cls, text: str) -> Window:
        """Parse `CENTER/WIDTH`, such as `40/400`.

        Raises:
            InputError: The text does not have this form.
        """
        center, _, width = text.partition("/")
        number = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
        if not re.fullmatch(number, center) or not re.fullmatch(number, width):
            raise InputError(f"--window {text}: expected CENTER/WIDTH, two numbers such as 40/400")
        if float(width) <= 0 or not all(map(math.isfinite, (float(center), float(width)))):
            raise InputError(f"--window {text}: expected a width above 0, such as 40/400")
        return cls(float(center), float(width))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Scale grey values of any type to uint8 of the same shape."""
        scaled = values.astype(np.float32)
        scaled -= np.float32(self.center)
        scaled /= np.float32(self.width)
        scaled += np.float32(0.5)
        scaled *= np.float32(255)
        return _rounded(np.nan_to_num(scaled, copy=False, nan=0.0))


def boxes(height: int, width: int, most: int = BAND_PIXELS) -> Iterator[tuple[int, int, int, int]]:
    """Divide an image into bands of rows, and rows that are too long into parts.

    Args:
        height: Of the image.
        width: Of the image.
        most: Pixels of a band at most.

    Yields:
        (left, top, right, bottom).
    """
    across = min(width, most)
    down = max(1, most // max(1, across))
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield left, top, min(left + across, width), min(top + down, height)


def to_rgb(image: Image.Image, window: Window | None = None) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB. An image that is RGB already is returned itself, not copied.

    Transparent pixels are blended with white. Grey deeper than 8 bits is scaled as `eight_bit` describes. The work goes
    by bands, so that only the result takes memory beside the image: 4 bytes a pixel.

    Args:
        image: The image.
        window: Which values of deep grey to show.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    places = list(boxes(image.height, image.width))
    convert: Callable[[Image.Image], Image.Image]
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        scale = window or Scale.of((np.asarray(image.crop(box)), None) for box in places)
        convert = partial(_scaled, scale=scale)
    elif image.mode == "LAB":
        convert = _lab_to_rgb
    elif image.has_transparency_data:
        convert = _on_white
    else:
        # Without working copies.
        return image.convert("RGB")
    if len(places) == 1:
        return convert(image)
    result = Image.new("RGB", image.size)
    for box in places:
        result.paste(convert(image.crop(box)), box)
    return result


def _scaled(image: Image.Image, scale: Scale | Window) -> Image.Image:
    return Image.fromarray(scale.apply(np.asarray(image)), "L").convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    """Convert LAB, which Pillow does only through colour profiles."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


@dataclass(frozen=True)
class Scale:
    """A linear map of deep values to 8 bits: `(value - low) * factor`.

    Attributes:
        low: The value that becomes 0, or None where nothing is subtracted.
        factor: The factor.
    """

    low: float | None
    factor: float

    @classmethod
    def of(cls, parts: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> Scale:
        """Find the map of an image by the rules of `eight_bit`.

        Args:
            parts: Values of one type [h, w] or [h, w, C], and which pixels count, bool [h, w]; None means all.
        """
        low, high, whole = math.inf, -math.inf, False
        for values, valid in parts:
            whole = np.issubdtype(values.dtype, np.integer)
            shown = _finite(values)
            counted = shown if valid is None or valid.all() else shown[valid]
            if counted.size:
                low, high = min(low, float(counted.min())), max(high, float(counted.max()))
        if low > high:
            low = high = 0.0
        ranges = [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)] if whole else [1.0, 255.0]
        fitting = [full for full in ranges if high <= full]
        if low >= 0 and fitting:
            return cls(None, 255.0 / fitting[0])
        return cls(low, 255.0 / max(high - low, 1e-12))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Scale values of any type to uint8 of the same shape."""
        scaled = _finite(values)
        if self.low is not None:
            scaled -= self.low
        scaled *= self.factor
        return _rounded(scaled)


def eight_bit(values: np.ndarray, window: Window | None = None, valid: np.ndarray | None = None) -> np.ndarray:
    """Scale deep values to uint8 of the same shape.

    Whole numbers are divided by the full range of the smallest usual depth (8, 10, 12, 14 or 16 bits) that holds the
    largest one. So a 12-bit scan stored in 16 bits is not black, and a page keeps its contrast. Floats are taken as
    0..1 or 0..255 where they fit. All other values, negative ones included, are stretched from the smallest to the
    largest.

    Args:
        values: Grey [H, W] or colours [H, W, C], whose channels are scaled alike.
        window: Which values to show. It replaces the rules above.
        valid: The pixels that determine the range, bool [H, W]. None means all.
    """
    places = [np.s_[top:bottom, left:right] for left, top, right, bottom in boxes(*values.shape[:2])]
    scale = window or Scale.of((values[place], None if valid is None else valid[place]) for place in places)
    result = np.empty(values.shape, np.uint8)
    for place in places:
        result[place] = scale.apply(values[place])
    return result


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _rounded(scaled: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)
