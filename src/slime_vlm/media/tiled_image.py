"""Large TIFF images that stay in their file. Rows are decoded when they are needed, tile by tile or strip by strip."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from slime_vlm.media import worker_pool
from slime_vlm.media.request import Request

LEAST_PIXELS = 30_000_000
"""Images with fewer pixels are decoded whole, which is faster: 30 million pixels are 120 MB in Pillow."""


@dataclass(frozen=True)
class TiledImage:
    """An 8-bit RGB or grey page of a TIFF, decoded by regions.

    It replaces a PIL image in `answering.encode`: it has a size, and `crop` returns a part of it as an image.

    Attributes:
        request: The file, with the name that messages use.
        index: The index of the page, from 0, overviews and masks included.
        height: Height in pixels.
        width: Width in pixels.
    """

    request: Request
    index: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The name that messages use, as the user gave it."""
        return self.request.name

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as for a PIL image."""
        return self.width, self.height

    def crop(self, box: tuple[int, int, int, int]) -> Image.Image:
        """Decode a part of the image.

        Args:
            box: Left, top, right and bottom in pixels, as for PIL images. It must lie inside the image.

        Returns:
            The part as RGB.

        Raises:
            MediaError: This part of the file is damaged.
        """
        return worker_pool.run("region", self.request, index=self.index, box=list(box)).images[0]


def open_tiled(request: Request, least_pixels: int | None = None) -> TiledImage | None:
    """Open a large page of a TIFF without decoding it.

    Args:
        request: The file and page.
        least_pixels: The smallest height times width to open this way, by default `LEAST_PIXELS`.

    Returns:
        The page, or None where it has to be decoded whole, see `tiff_regions.find_tiled`.

    Raises:
        MediaError: The file has no such page, is damaged, or the page is larger than the limit.
    """
    found = worker_pool.run(
        "find_tiled", request, least_pixels=LEAST_PIXELS if least_pixels is None else least_pixels
    ).value
    return None if found is None else TiledImage(request, *found)
