"""Turning images upright by the orientation that cameras and scanners note beside the pixels."""

from __future__ import annotations

from PIL import Image

ORIENTATION_TAG = 0x0112

LYING = (5, 6, 7, 8)
"""Orientations in which height and width are exchanged."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: object) -> Image.Image:
    """Turns an image by its EXIF or TIFF orientation; one that is unknown leaves it as it is stored."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image  # type: ignore[index]
