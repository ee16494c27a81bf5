"""HEIC and HEIF images, as phones take them, read by libheif."""

from __future__ import annotations

from PIL import Image

from slime_vlm.extras import import_extra
from slime_vlm.media.colours import to_rgb
from slime_vlm.media.request import Request


def read_heic(request: Request) -> Image.Image:
    """Reads the main image of a file, or the one that is asked for.

    Raises:
        MediaError: pillow-heif is not installed, there is no such image, or it is larger than the limit.
    """
    heif = import_extra("pillow_heif", request.name, "a HEIC image", "heic")
    file = heif.open_heif(request.path)
    image = file[request.index(len(file), "images", default=file.primary_index)]
    width, height = image.size
    request.check_size(height, width)
    # libheif has turned it upright already.
    return to_rgb(image.to_pillow())
