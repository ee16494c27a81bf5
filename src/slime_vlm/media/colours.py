"""Convert pixel values of any depth to 8 bits, and images of any mode to RGB."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from slime_vlm.errors import InputError


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


def to_rgb(image: Image.Image, window: Window | None = None) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB. An image that is RGB already is returned itself, not copied.

    Transparent pixels are blended with white. Grey deeper than 8 bits is scaled as `eight_bit` describes.

    Args:
        image: The image.
        window: Which values of deep grey to show.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return Image.fromarray(eight_bit(np.asarray(image), window), "L").convert("RGB")
    if image.mode == "LAB":
        # Pillow converts LAB only through colour profiles.
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


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
    if window is not None:
        return window.apply(values)
    whole = np.issubdtype(values.dtype, np.integer)
    # Scale in place from here on: a large image of deep colours takes gigabytes.
    scaled = np.nan_to_num(values.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    counted = scaled if valid is None or valid.all() else scaled[valid]
    low, high = (float(counted.min()), float(counted.max())) if counted.size else (0.0, 0.0)
    ranges = [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)] if whole else [1.0, 255.0]
    fitting = [full for full in ranges if high <= full]
    if low >= 0 and fitting:
        scaled *= 255.0 / fitting[0]
    else:
        scaled -= low
        scaled *= 255.0 / max(high - low, 1e-12)
    return _rounded(scaled)


def _rounded(scaled: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)
