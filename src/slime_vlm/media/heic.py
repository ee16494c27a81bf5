"""HEIC and HEIF images, the format of many phones, read by libheif."""

from __future__ import annotations

from PIL import Image

from slime_vlm.extras import import_extra
from slime_vlm.media.colours import to_rgb
from slime_vlm.media.file_type import FileType, brands
from slime_vlm.media.request import Request

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


def recognizes_heic(head: bytes) -> bool:
    """Tell whether a file is HEIC. AVIF files carry some of the same brands, so ask for AVIF first."""
    return bool(brands(head) & _BRANDS)


def read_heic(request: Request) -> Image.Image:
    """Read the requested image of a file, by default its main image.

    Raises:
        MediaError: pillow-heif is not installed, the file has no such image, or the image is larger than the limit.
    """
    heif = import_extra("pillow_heif", request.name, "a HEIC image needs pillow-heif", "heic")
    file = heif.open_heif(request.path)
    image = file[request.index(len(file), "images", default=file.primary_index)]
    width, height = image.size
    request.check_size(height, width)
    # libheif has already turned it upright.
    return to_rgb(image.to_pillow())


HEIC = FileType(recognizes_heic, read_heic)
