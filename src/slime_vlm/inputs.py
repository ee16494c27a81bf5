"""Opening pictures: whatever Pillow reads becomes 8-bit RGB, upright, or one clear line says why not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from slime_vlm.errors import InputError

MAX_PIXELS = 200_000_000
"""Default limit on height times width: about a 14,000 px square, 800 MB once decoded (Pillow pads RGB to 4 bytes)."""

# Pillow keeps its own limit in a module variable, so setting it aside is guarded.
_PILLOW_LIMIT = threading.Lock()

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens a picture file as 8-bit RGB, turned upright by its EXIF orientation.

    The first frame of a file with several is taken, transparency is laid on white, and deep grey values are scaled
    to 8 bits as `to_rgb` describes.

    Args:
        path: the file.
        max_pixels: the largest height times width to decode.

    Returns:
        An RGB picture that no longer depends on the file.

    Raises:
        InputError: the file is missing, empty, a folder, not a picture, damaged, or larger than `max_pixels`.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: this is a folder, a picture file is expected")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty, a picture is expected")
    try:
        with _pillow_limit_aside(), Image.open(path) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f"{path}: {width} x {height} is {width * height / 1e6:,.1f} million pixels, the limit is "
                    f"{max_pixels / 1e6:,.1f} million; raise it with --max-pixels {width * height}"
                )
            image.load()
            return to_rgb(_upright(image))
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture, or of a kind that Pillow does not read") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it") from None
    # Decoders fed with damaged bytes fail in many ways (SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        raise InputError(f"{path}: the picture is damaged or incomplete ({error}); make a new copy of it") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Turns a picture of any mode into 8-bit RGB; one that is so already is returned itself, not copied.

    Transparent pictures are laid on white. Integer grey deeper than 8 bits is divided by the full range of the
    smallest usual depth (8, 10, 12, 14 or 16 bits) that holds its largest value, so a 12-bit scan stored in 16 bits is
    not black and a page keeps its contrast; grey that fits none, or is negative, is stretched from its least to its
    largest value. Float grey is taken as 0..1 or 0..255 where it fits, else stretched.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bit(np.asarray(image)), "L").convert("RGB")
    if image.mode == "LAB":
        # Pillow converts LAB through colour profiles only.
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        # Damaged metadata does not make the picture unreadable: viewers show it as stored, and so do we.
        orientation = 1
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _eight_bit(grey: np.ndarray) -> np.ndarray:
    """Scales deep grey [H, W] to uint8 [H, W]."""
    whole = np.issubdtype(grey.dtype, np.integer)
    values = np.nan_to_num(grey.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    ranges = [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)] if whole else [1.0, 255.0]
    fitting = [full for full in ranges if high <= full]
    if low >= 0 and fitting:
        scaled = values * (255.0 / fitting[0])
    else:
        scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


@contextmanager
def _pillow_limit_aside() -> Iterator[None]:
    """Sets Pillow's own size limit aside: ours is checked before decoding, with a message that says what to do."""
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
