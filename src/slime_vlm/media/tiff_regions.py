"""Read regions of large TIFF images: find out whether a page allows it, and decode tiles or strips."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from slime_vlm.media.orientation import ORIENTATION_TAG
from slime_vlm.media.request import Request
from slime_vlm.media.tiff import BLACK_IS_ZERO, JPEG, RGB, YCBCR, check_directories, needs_tifffile, page_index

# Higher tiles or strips would be decoded many times, for a few rows each.
_MOST_ROWS = 1024


def find_tiled(request: Request, least_pixels: int) -> tuple[int, int, int] | None:
    """Tell whether the page of a TIFF can be decoded by regions.

    Args:
        request: The file and page.
        least_pixels: The smallest height times width to decode this way.

    Returns:
        (index of the page, height, width), or None where the page has to be decoded whole. That is the case without
        tifffile, for smaller and truncated images, and for all but upright 8-bit grey or RGB values in tiles or strips
        of at most 1024 rows. Other depths and colours, transparency, nodata and separate planes are decoded whole.

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
        if height * width < least_pixels or not _is_simple(page) or not _is_complete(page, file.filehandle.size):
            return None
        # It stays in the file, so only its pixels count.
        request.check_size(height, width, pixel_bytes=0)
    try:
        decode_region(request, index, (0, 0, 1, 1))
    except MemoryError:
        raise
    # The reader of whole pages takes over. It also reports what is wrong with the file.
    except Exception:
        return None
    return index, height, width


def decode_region(request: Request, index: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Decode a part of a page that `find_tiled` found.

    Args:
        request: The file.
        index: The index of the page, from 0, overviews and masks included.
        box: Left, top, right and bottom in pixels. It must lie inside the page.

    Returns:
        The part as RGB.
    """
    left, top, right, bottom = box
    tifffile = importlib.import_module("tifffile")
    with tifffile.TiffFile(request.path) as file:
        page = file.pages[index]
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
