"""Formats that Pillow reads without another package: PNG, JPEG, WebP, GIF, BMP, JPEG 2000, AVIF and more."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from slime_vlm.media.colours import to_rgb
from slime_vlm.media.file_type import FileType, brands
from slime_vlm.media.orientation import ORIENTATION_TAG, UPRIGHT, upright
from slime_vlm.media.request import Request

# Pillow warns on the terminal about damaged metadata. Here a file is opened, or the error says why not.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# Pillow keeps its own size limit in a module variable, so changing it needs a lock.
_PILLOW_LIMIT = threading.Lock()

UNTRUSTED_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""The formats that are tried on untrusted files. Some of Pillow's rarer readers start other programs."""

# Bytes that Pillow stores for a pixel, 4 for the other modes.
_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}

# Bytes a pixel that decoders take beside the image. WebP: two canvases, the frame and its copy. GIF: the screen, and
# what lies under a frame.
_DECODER_BYTES = {"WEBP": 16.0, "GIF": 6.0}

# Ordinary progressive files have about ten scans. Each takes the time of a whole image, even if it is empty.
_MOST_SCANS = 64
_MOST_BYTES_TO_COUNT = 100_000_000


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
        # Of a PNG without it so far, Pillow would decode all to look behind the pixels, and lose the error of a damaged
        # one on the way.
        turned = "exif" in image.info and _orientation(image) in UPRIGHT
        request.check_size(image.height, image.width, _pixel_bytes(image, turned))
        image.load()
        return upright(to_rgb(image, request.window), _orientation(image))


def decodes_in_process(request: Request, head: bytes) -> bool:
    """Tell whether a file may be decoded without the worker: PNG, JPEG, WebP and GIF, whose cost is known beforehand.

    Later frames are not among them, since all before must be decoded, nor are JPEG files of very many scans.
    """
    if request.page is not None or not recognizes_pillow(head) or brands(head):
        return False
    if not head.startswith(b"\xff\xd8\xff"):
        return True
    if request.path.stat().st_size > _MOST_BYTES_TO_COUNT:
        return False
    return request.path.read_bytes().count(b"\xff\xda") <= _MOST_SCANS


@contextmanager
def opened(request: Request) -> Iterator[Image.Image]:
    """Open a file without decoding it. `Request.check_size` replaces Pillow's size limit, as it says what to do."""
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(request.path, formats=UNTRUSTED_FORMATS if request.untrusted else None)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _pixel_bytes(image: Image.Image, turned: bool) -> float:
    """Return the bytes that each pixel of an opened image takes at the peak: decoding, then conversion to RGB."""
    stored = _STORED_BYTES.get(image.mode, 4)
    decoder = 0.0
    if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        # libjpeg keeps all coefficients, 2 bytes each.
        decoder = 2.0 * len(image.getbands())
    elif image.format in _DECODER_BYTES:
        decoder = _DECODER_BYTES[image.format]
    rgb = image.mode == "RGB" and not image.has_transparency_data
    # The image as RGB and its turned copy are made one after the other, and the decoded image stays until the end.
    return max(stored + decoder, stored + (0 if rgb else 4) + (4 if turned else 0))


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:
        # Damaged metadata does not make the image unreadable. Viewers show it as stored, and so do we.
        return 1


PILLOW = FileType(recognizes_pillow, read_pillow)
