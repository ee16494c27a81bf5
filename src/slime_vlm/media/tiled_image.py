"""Large TIFF images that stay in their file: rows are decoded as they are needed, tile by tile or strip by strip."""

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
from slime_vlm.media.request import Request
from slime_vlm.media.tiff import full_pages, needs_tifffile

LEAST_PIXELS = 30_000_000
"""Smaller images are decoded whole, which takes less time: 30 million pixels are 120 MB in Pillow."""

_BLACK_IS_ZERO, _RGB, _YCBCR = 1, 2, 6  # photometric
_JPEG = 7  # compression
# Higher tiles or strips would be decoded again and again for a few rows each time.
_MOST_ROWS = 1024


@dataclass(frozen=True)
class TiledImage:
    """An 8-bit RGB or grey page of a TIFF, decoded by regions.

    Stands where a PIL image stands in `answering.encode`: it has a size, and `crop` gives a part of it as an image.

    Attributes:
        path: the file.
        name: what the user calls it, for messages.
        place: the page, from 0, overviews and masks among them.
        height: height in pixels.
        width: width in pixels.
    """

    path: Path
    name: str
    place: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as of a PIL image."""
        return self.width, self.height

    def crop(self, box: tuple[int, int, int, int]) -> Image.Image:
        """Decodes a part.

        Args:
            box: left, top, right and bottom in pixels, as for PIL images; wholly inside the image.

        Raises:
            MediaError: what is needed of the file is damaged.
        """
        try:
            return self._decode(*box)
        except MemoryError:
            raise
        except OSError as error:
            # Gone, or no longer to be read.
            if error.errno is not None:
                raise
            raise _damaged(self.name, error) from error
        # Decoders fed with damaged bytes fail in many ways.
        except Exception as error:
            raise _damaged(self.name, error) from error

    def _decode(self, left: int, top: int, right: int, bottom: int) -> Image.Image:
        tifffile = importlib.import_module("tifffile")
        with tifffile.TiffFile(self.path) as file:
            page = file.pages[self.place]
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
    """Opens a large page of a TIFF without decoding it, or gives None where it has to be decoded whole.

    That is so without tifffile, for smaller images, and for what is more than 8-bit grey or RGB values in tiles or
    strips of at most 1024 rows: other depths and colours, transparency, nodata, bands apart, pages that lie on their
    side; and for files that were cut off.

    Args:
        request: the file and page.
        least_pixels: height times width from which on it is worth it, by default `LEAST_PIXELS`.

    Raises:
        MediaError: there is no such page, or it is larger than the limit.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ModuleNotFoundError:
        return None
    with tifffile.TiffFile(request.path) as file:
        full = full_pages([int(page.subfiletype) for page in file.pages])
        place = full[request.index(len(full), "pages")]
        page = file.pages[place]
        height, width = page.imagelength, page.imagewidth
        large = height * width >= (LEAST_PIXELS if least_pixels is None else least_pixels)
        if not large or not _is_simple(page) or not _is_complete(page, file.filehandle.size):
            return None
        request.check_size(height, width)
    image = TiledImage(request.path, request.name, place, height, width)
    try:
        image.crop((0, 0, 1, 1))
    # What cannot be decoded by parts is left to the readers of whole pages, which also say what is wrong with it.
    except MediaError:
        return None
    return image


def _damaged(name: str, error: Exception) -> MediaError:
    found = " ".join(str(error).split())[:200] or type(error).__name__
    return MediaError(f"{name}: the image is damaged or incomplete ({found}); make a new copy of it")


def _is_simple(page: Any) -> bool:
    """8-bit grey or RGB values (or JPEG's colours, decoded to RGB), upright, in parts of few rows."""
    bands = {_BLACK_IS_ZERO: 1, _RGB: 3, _YCBCR: 3 if page.compression == _JPEG else 0}.get(page.photometric)
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
    """Whether all tiles or strips are told of and lie inside the file."""
    offsets, sizes = page.dataoffsets, page.databytecounts
    return len(offsets) == len(sizes) and max(map(sum, zip(offsets, sizes, strict=True)), default=0) <= file_size


def _parts(file: Any, page: Any, left: int, top: int, right: int, bottom: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Decoded tiles or strips that overlap a box: (row, column, values [h, w, bands]) each."""
    part_height, part_width = page.chunks[0], page.chunks[1]
    across = -(-page.imagewidth // part_width)
    rows = range(top // part_height, -(-bottom // part_height))
    columns = range(left // part_width, -(-right // part_width))
    numbers = [row * across + column for row in rows for column in columns]
    offsets = [page.dataoffsets[number] for number in numbers]
    sizes = [page.databytecounts[number] for number in numbers]
    for data, number in file.filehandle.read_segments(offsets, sizes, indices=numbers):
        if data is None:
            # Left out by the writer: empty.
            continue
        values, (_, _, row, column, _), _shape = page.decode(
            data, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader
        )
        if values is not None:
            yield row, column, values[0]
