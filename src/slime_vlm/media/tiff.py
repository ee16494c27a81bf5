"""TIFF files: pages, BigTIFF, GeoTIFF, deep grey and colour, many bands.

Pillow reads what it supports well, with or without tifffile: 8-bit grey and colour, palettes, CMYK, YCbCr, fax.
tifffile reads the rest: deep values, more than four bands, separate planes, nodata and rarer compressions.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import COMPRESSION_INFO

from slime_vlm.errors import MediaError
from slime_vlm.extras import install_advice
from slime_vlm.media.colours import Scale, boxes
from slime_vlm.media.file_type import FileType
from slime_vlm.media.orientation import ORIENTATION_TAG, upright
from slime_vlm.media.pillow import opened, read_pillow
from slime_vlm.media.request import RESULT_BYTES, Request

# Errors carry what tifffile reports about a file. Applications that configure logging still get its log.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_SUBFILE_TAG, _BITS_TAG, _SAMPLES_TAG, _NODATA_TAG = 254, 258, 277, 42113
_REDUCED_OR_MASK = 0b101  # bits of the subfile tag
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6  # values of the photometric tag
_PREMULTIPLIED, _ALPHA = 1, 2  # values of the tag for extra samples
JPEG, _WEBP = 7, 50001  # values of the compression tag

# Colours of 8 bits as an array.
_EIGHT_BIT_BYTES = 3

MAX_PAGES = 10_000
"""Most directories of a file: pages, overviews and masks."""

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def recognizes_tiff(head: bytes) -> bool:
    """Tell whether a file is a TIFF or BigTIFF."""
    return head.startswith(_SIGNATURES)


def read_tiff(request: Request) -> Image.Image:
    """Read a page. Overviews and masks do not count as pages.

    Raises:
        MediaError: The file has no such page, the page is larger than the limit or has no values that can be shown,
            or tifffile is needed and not installed.
    """
    check_directories(request)
    try:
        tifffile = importlib.import_module("tifffile")
    except ModuleNotFoundError:
        return _read_without_tifffile(request)
    with tifffile.TiffFile(request.path) as file:
        index = page_index(request, [int(page.subfiletype) for page in file.pages])
        page = file.pages[index]
        if needs_tifffile(page):
            return _read_page(page, request)
    return read_pillow(request, index)


def check_directories(request: Request) -> None:
    """Walk through the list of directories before a library does, which may not notice that it never ends.

    Raises:
        MediaError: A directory leads back to an earlier one, or there are more than `MAX_PAGES`.
    """
    with request.path.open("rb") as file:
        head = file.read(16)
        order: Literal["little", "big"] = "little" if head.startswith(b"II") else "big"

        def number(content: bytes) -> int:
            return int.from_bytes(content, order)

        big = number(head[2:4]) == 43
        # Bytes of an offset, of the number of entries, and of an entry.
        offset_bytes, count_bytes, entry_bytes = (8, 8, 20) if big else (4, 2, 12)
        offset = number(head[8:16] if big else head[4:8])
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise MediaError(
                    f"{request.name}: its list of pages is a loop; save the image again in another program"
                )
            seen.add(offset)
            if len(seen) > MAX_PAGES:
                raise MediaError(f"{request.name}: it has more than {MAX_PAGES:,} pages; split the file")
            file.seek(offset)
            count = file.read(count_bytes)
            file.seek(offset + count_bytes + number(count) * entry_bytes)
            # Empty at the end of a file that was cut off, which the libraries report.
            offset = number(file.read(offset_bytes))


def page_index(request: Request, subfile_types: Sequence[int]) -> int:
    """Return the index of the requested page among all directories of a file, overviews and masks included.

    Args:
        request: The file and page.
        subfile_types: The subfile tag of every directory.

    Raises:
        MediaError: The file has no such page.
    """
    pages = [index for index, flags in enumerate(subfile_types) if not flags & _REDUCED_OR_MASK]
    pages = pages or list(range(len(subfile_types)))
    return pages[request.index(len(pages), "pages")]


def needs_tifffile(page: Any) -> bool:
    """Tell whether Pillow cannot read a page, or reads it wrongly."""
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        return False
    separate_planes = page.samplesperpixel > 1 and page.planarconfig == 2
    # After lossy compression no pixel has the exact nodata value.
    nodata = _nodata(page) is not None and page.compression != JPEG
    unknown = int(page.compression) not in COMPRESSION_INFO or page.compression == _WEBP
    # Writers may omit empty tiles. Pillow reports them as damage.
    sparse = 0 in page.databytecounts
    many_bands = page.samplesperpixel > 4
    return page.bitspersample > 8 or many_bands or separate_planes or nodata or unknown or sparse


def _read_page(page: Any, request: Request) -> Image.Image:
    if page.imagedepth > 1:
        raise MediaError(f"{request.name}: one page holds a volume of {page.imagedepth} layers; save them as pages")
    if page.dtype is None or page.dtype.kind not in "buif":
        found = "values of an unknown type" if page.dtype is None else f"{page.dtype} values"
        raise MediaError(f"{request.name}: it holds {found}, expected whole or floating point numbers")
    samples = page.samplesperpixel
    # A tile may be far larger than its image, and it is decoded as a whole.
    height, width = max(page.imagelength, page.tilelength), max(page.imagewidth, page.tilewidth)
    # The decoded values, the image with its 8-bit copy, and the copy that the caller receives.
    request.check_size(height, width, pixel_bytes=samples * page.dtype.itemsize + _EIGHT_BIT_BYTES + RESULT_BYTES)
    try:
        values = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        need = f"a TIFF with {page.compression.name} compression needs imagecodecs"
        raise MediaError(install_advice(request.name, need, "tiff")) from None
    # Separate planes come first in the array, interleaved bands last. Move the bands last in both cases.
    values = np.moveaxis(values.reshape(page.shaped)[:, 0], 0, -1).reshape(page.imagelength, page.imagewidth, samples)
    orientation = page.tags.get(ORIENTATION_TAG)
    image = Image.fromarray(_shown(values, page, request)).convert("RGB")
    return upright(image, 1 if orientation is None else orientation.value)


def _shown(values: np.ndarray, page: Any, request: Request) -> np.ndarray:
    """Return the values [H, W, bands] of a page as they are shown: uint8, grey [H, W] or colours [H, W, 3]."""
    samples = values.shape[-1]
    extras = dict(enumerate(map(int, page.extrasamples), start=samples - len(page.extrasamples)))
    alphas = [band for band, kind in extras.items() if kind in (_PREMULTIPLIED, _ALPHA)]
    bands = [band for band in range(samples) if band not in alphas]
    shown = values[..., bands[:3] if len(bands) >= 3 else bands[0]]
    nodata = _nodata(page)
    # By bands of rows: working copies of all values would take gigabytes.
    places = [np.s_[top:bottom, left:right] for left, top, right, bottom in boxes(*values.shape[:2])]
    scale = request.window or Scale.of((shown[place], _valid(shown[place], nodata)) for place in places)
    result = np.empty(shown.shape, np.uint8)
    for place in places:
        eight = scale.apply(shown[place])
        if page.photometric == WHITE_IS_ZERO:
            eight = 255 - eight
        if alphas:
            full = np.iinfo(page.dtype).max if page.dtype.kind in "ui" else 1
            weight = values[place][..., alphas[0]].astype(np.float32) / np.float32(full)
            weight = weight if eight.ndim == 2 else weight[..., None]
            ink = eight if extras[alphas[0]] == _PREMULTIPLIED else eight * weight
            eight = np.rint(ink + 255 * (1 - weight)).clip(0, 255).astype(np.uint8)
        # White, as under transparent pixels.
        eight[~_valid(shown[place], nodata)] = 255
        result[place] = eight
    return result


def _nodata(page: Any) -> float | None:
    """Return the value that GDAL stores in pixels without data."""
    tag = page.tags.get(_NODATA_TAG)
    try:
        return None if tag is None else float(str(tag.value).strip(" \0"))
    except ValueError:
        return None


def _valid(shown: np.ndarray, nodata: float | None) -> np.ndarray:
    """Return which pixels have data, bool [H, W], of grey [H, W] or colours [H, W, 3]."""
    empty = np.zeros(shown.shape, dtype=bool)
    if shown.dtype.kind == "f":
        empty |= np.isnan(shown)
    if nodata is not None:
        empty |= shown == nodata
    return ~empty if empty.ndim == 2 else ~np.all(empty, axis=-1)


def _read_without_tifffile(request: Request) -> Image.Image:
    """Read the pages that Pillow reads correctly. For the others the error names the extra."""
    try:
        with opened(request) as image:
            subfile_types = []
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                subfile_types.append(int(image.tag_v2.get(_SUBFILE_TAG, 0)))  # type: ignore[attr-defined]
            index = page_index(request, subfile_types)
            image.seek(index)
            tags = dict(image.tag_v2)  # type: ignore[attr-defined]
        # Pillow truncates deep colours to their upper 8 bits and treats nodata as values.
        deep = max(tags.get(_BITS_TAG, (1,))) > 8
        if deep and (tags.get(_SAMPLES_TAG, 1) > 1 or _NODATA_TAG in tags):
            need = "a TIFF with deep colours or nodata needs tifffile"
            raise MediaError(install_advice(request.name, need, "tiff"))
        return read_pillow(request, index)
    # Pillow raises these for layouts and compressions that it does not know.
    except (UnidentifiedImageError, KeyError):
        need = "a TIFF that Pillow cannot read needs tifffile"
        raise MediaError(install_advice(request.name, need, "tiff")) from None


TIFF = FileType(recognizes_tiff, read_tiff)
