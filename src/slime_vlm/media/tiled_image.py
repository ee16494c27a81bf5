"""Large TIFF images that stay in their file. Rows are decoded when they are needed, tile by tile or strip by strip."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media.orientation import ORIENTATION_TAG
from slime_vlm.media.request import Request, damaged
from slime_vlm.media.tiff import BLACK_IS_ZERO, JPEG, RGB, YCBCR, check_directories, needs_tifffile, page_index

LEAST_PIXELS = 30_000_000
"""Images with fewer pixels are decoded whole, which is faster: 30 million pixels are 120 MB in Pillow."""

# Higher tiles or strips would be decoded many times, for a few rows each.
_MOST_ROWS = 1024


@dataclass(frozen=True)
class TiledImage:
    """An 8-bit RGB or grey page of a TIFF, decoded by regions.

    It replaces a PIL image in `answering.encode`: it has a size, and `crop` returns a part of it as an image.

    Attributes:
        path: The file.
        name: The name that messages use, as the user gave it.
        index: The index of the page, from 0, overviews and masks included.
        height: Height in pixels.
        width: Width in pixels.
    """

    path: Path
    name: str
    index: int
    height: int
    width: int

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
        try:
            return self._decode(*box)
        except MemoryError:
            raise
        except OSError as error:
            # The system cannot read the file: it is gone, for example. That is not damage.
            if error.errno is not None:
                raise
            raise damaged(self.name, "image", error) from error
        # Decoders raise many kinds of errors for damaged bytes.
        except Exception as error:
            raise damaged(self.name, "image", error) from error

    def _decode(self, left: int, top: int, right: int, bottom: int) -> Image.Image:
        tifffile = importlib.import_module("tifffile")
        with tifffile.TiffFile(self.path) as file:
            page = file.pages[self.index]
            part = np.zeros((bottom - top, right - left, page.samplesperpixel), np.uint8)
            for row, column, values in _parts(file, page, left, top, right, bottom):
                # The overlap of this tile with the box, in pixels of the image.
                upper, lower = max(row, top), min(row + values.shape[0], bottom)
                first, last = max(column, left), min(column + values.shape[1], right)
                if upper < lower and first < last:
                    part[upper - top : lower - top, first - left : last - left] = values[
                        upper - row : lower - row, first - column : last - column
                    ]
        return Image.fromarray(part[..., 0] if part.shape[-1] == 1 else part).convert("RGB")


def open_tiled(request: Request, least_pixels: int | None = None) -> TiledImage | None:
    """Open a large page of a TIFF without decoding it.

    Args:
        request: The file and page.
        least_pixels: The smallest height times width to open this way, by default `LEAST_PIXELS`.

    Returns:
        The page, or None where it has to be decoded whole. That is the case without tifffile, for smaller and
        truncated images, and for all but upright 8-bit grey or RGB values in tiles or strips of at most 1024 rows.
        Other depths and colours, transparency, nodata and separate planes are decoded whole.

    Raises:
        MediaError: The file has no such page, or the page is larger than the limit.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ModuleNotFoundError:
        return None
    check_directories(request)
    with tifffile.TiffFile(request.path) as file:
        index = page_index(request, [int(page.subfiletype) for page in file.pages])
        page = file.pages[index]
        height, width = page.imagelength, page.imagewidth
        large = height * width >= (LEAST_PIXELS if least_pixels is None else least_pixels)
        if not large or not _is_simple(page) or not _is_complete(page, file.filehandle.size):
            return None
        request.check_size(height, width)
    image = TiledImage(request.path, request.name, index, height, width)
    try:
        image.crop((0, 0, 1, 1))
    # The reader of whole pages takes over. It also reports what is wrong with the file.
    except MediaError:
        return None
    return image


def _is_simple(page: Any) -> bool:
    """Tell whether a page has upright 8-bit grey or RGB values (or JPEG's YCbCr) in tiles or strips of few rows."""
    bands = {BLACK_IS_ZERO: 1, RGB: 3, YCBCR: 3 if page.compression == JPEG else 0}.get(page.photometric)
    orientation = page.tags.get(ORIENTATION_TAG)
    return (
        page.samplesperpixel == bands
        and page.bitspersample == 8
        and page.imagedepth == 1
        and not needs_tifffile(page)
        and (orientation is None or orientation.value == 1)
        and page.chunks[0] <= min(_MOST_ROWS, page.imagelength // 2)
    )


def _is_complete(page: Any, file_size: int) -> bool:
    """Tell whether all tiles or strips are listed and lie inside the file."""
    offsets, sizes = page.dataoffsets, page.databytecounts
    return len(offsets) == len(sizes) and max(map(sum, zip(offsets, sizes, strict=True)), default=0) <= file_size


def _parts(file: Any, page: Any, left: int, top: int, right: int, bottom: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the decoded tiles or strips that overlap a box, as (row, column, values [h, w, bands])."""
    part_height, part_width = page.chunks[0], page.chunks[1]
    across = -(-page.imagewidth // part_width)
    rows = range(top // part_height, -(-bottom // part_height))
    columns = range(left // part_width, -(-right // part_width))
    numbers = [row * across + column for row in rows for column in columns]
    offsets = [page.dataoffsets[number] for number in numbers]
    sizes = [page.databytecounts[number] for number in numbers]
    for data, number in file.filehandle.read_segments(offsets, sizes, indices=numbers):
        if data is None:
            # The writer omitted this tile because it is empty.
            continue
        values, (_, _, row, column, _), _shape = page.decode(
            data, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader
        )
        if values is not None:
            yield row, column, values[0]
