"""Images that Pillow reads: PNG, JPEG, WebP, GIF, BMP, JPEG 2000, AVIF, ordinary TIFF and more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from slime_vlm.media.colours import to_rgb
from slime_vlm.media.orientation import ORIENTATION_TAG, upright
from slime_vlm.media.request import Request

# Pillow keeps its own limit in a module variable, so setting it aside is guarded.
_PILLOW_LIMIT = threading.Lock()

# Of what strangers send, only these are tried: some of Pillow's rarer readers start other programs.
_FORMATS_OF_STRANGERS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")


def read_pillow(request: Request, place: int | None = None) -> Image.Image:
    """Reads an image, or a page of it.

    Args:
        request: what to read.
        place: the frame as Pillow counts them, from 0, where that is known already.

    Raises:
        MediaError: there is no such page, or it is larger than the limit.
        PIL.UnidentifiedImageError: Pillow does not know the format.
    """
    with opened(request) as image:
        if place is None and request.page is not None:
            place = request.index(getattr(image, "n_frames", 1), "pages")
        if place:
            image.seek(place)
        request.check_size(image.height, image.width)
        image.load()
        return to_rgb(upright(image, _orientation(image)), request.window)


@contextmanager
def opened(request: Request) -> Iterator[Image.Image]:
    """Opens a file without decoding it. Pillow's own size limit is set aside: ours says what to do."""
    formats = _FORMATS_OF_STRANGERS if request.downloaded else None
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
        # Damaged metadata does not make the image unreadable: viewers show it as stored, and so do we.
        return 1
