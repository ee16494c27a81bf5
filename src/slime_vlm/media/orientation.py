"""Turn images upright by the orientation that cameras and scanners store beside the pixels."""

from __future__ import annotations

from PIL import Image

ORIENTATION_TAG = 0x0112

LYING = (5, 6, 7, 8)
"""Orientations that exchange height and width."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image that was stored with an orientation."""


def upright(image: Image.Image, orientation: object) -> Image.Image:
    """Turn an image by its EXIF or TIFF orientation. An unknown orientation leaves the image as it is."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image  # type: ignore[index]
