"""Formats that Pillow reads without another package: PNG, JPEG, WebP, GIF, BMP, JPEG 2000, AVIF and more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from slime_vlm.media.colours import to_rgb
from slime_vlm.media.file_type import FileType, brands
from slime_vlm.media.orientation import ORIENTATION_TAG, upright
from slime_vlm.media.request import Request

# Pillow keeps its own size limit in a module variable, so changing it needs a lock.
_PILLOW_LIMIT = threading.Lock()

# The formats that are tried on untrusted files. Some of Pillow's rarer readers start other programs.
_FORMATS_OF_UNTRUSTED_FILES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")


def recognizes_pillow(head: bytes) -> bool:
    """Tell whether a file has one of the formats that other types could be taken for. Pillow reads many more."""
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return webp or head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")) or bool(brands(head) & {b"avif", b"avis"})


def read_pillow(request: Request, index: int | None = None) -> Image.Image:
    """Read an image, or one page of it.

    Args:
        request: The file and page.
        index: The frame as Pillow counts them, from 0, where the caller knows it already.

    Raises:
        MediaError: The file has no such page, or the image is larger than the limit.
        PIL.UnidentifiedImageError: Pillow does not know the format.
    """
    with opened(request) as image:
        if index is None and request.page is not None:
            index = request.index(getattr(image, "n_frames", 1), "pages")
        if index:
            image.seek(index)
        request.check_size(image.height, image.width)
        image.load()
        return to_rgb(upright(image, _orientation(image)), request.window)


@contextmanager
def opened(request: Request) -> Iterator[Image.Image]:
    """Open a file without decoding it. `Request.check_size` replaces Pillow's size limit, as it says what to do."""
    formats = _FORMATS_OF_UNTRUSTED_FILES if request.untrusted else None
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(request.path, formats=formats) as image:
                yield image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:
        # Damaged metadata does not make the image unreadable. Viewers show it as stored, and so do we.
        return 1


PILLOW = FileType(recognizes_pillow, read_pillow)
