"""TIFF of every kind: pages, BigTIFF, GeoTIFF, deep grey and colour, many bands.

What Pillow reads well it reads, with or without tifffile: 8-bit grey and colour, palettes, CMYK, YCbCr, fax. The rest
(deep values, more than four bands, bands stored apart, nodata, rarer compression) is tifffile's.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import COMPRESSION_INFO

from slime_vlm.errors import MediaError
from slime_vlm.extras import missing
from slime_vlm.media.colours import eight_bit
from slime_vlm.media.orientation import ORIENTATION_TAG, upright
from slime_vlm.media.pillow import opened, read_pillow
from slime_vlm.media.request import Request

# What it has to say about a file is in the one line of the error; applications that want its log get it still.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_SUBFILE_TAG, _BITS_TAG, _SAMPLES_TAG, _NODATA_TAG = 254, 258, 277, 42113
_REDUCED_OR_MASK = 0b101  # bits of the subfile tag
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # photometric
_PREMULTIPLIED, _ALPHA = 1, 2  # kinds of extra samples
_JPEG, _WEBP = 7, 50001  # compression


def read_tiff(request: Request) -> Image.Image:
    """Reads a page; overviews and masks do not count as pages.

    Raises:
        MediaError: there is no such page, it is larger than the limit, or it holds no image that can be shown; or
            tifffile is needed and not installed.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ModuleNotFoundError:
        return _read_without_tifffile(request)
    with tifffile.TiffFile(request.path) as file:
        full = full_pages([int(page.subfiletype) for page in file.pages])
        place = full[request.index(len(full), "pages")]
        page = file.pages[place]
        if needs_tifffile(page):
            return _read_page(page, request)
    return read_pillow(request, place)


def full_pages(subfile_types: Sequence[int]) -> list[int]:
    """Places of the pages that are images of their own."""
    full = [place for place, kind in enumerate(subfile_types) if not kind & _REDUCED_OR_MASK]
    return full or list(range(len(subfile_types)))


def needs_tifffile(page: Any) -> bool:
    """Tells whether a page is one that Pillow does not read, or not rightly."""
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        return False
    bands_apart = page.samplesperpixel > 1 and page.planarconfig == 2
    # Lossy compression leaves nothing that equals a nodata value.
    nodata = _nodata(page) is not None and page.compression != _JPEG
    unknown = int(page.compression) not in COMPRESSION_INFO or page.compression == _WEBP
    # Tiles that a writer left out are empty, which Pillow takes for damage.
    sparse = 0 in page.databytecounts
    return page.bitspersample > 8 or page.samplesperpixel > 4 or bands_apart or nodata or unknown or sparse


def _read_page(page: Any, request: Request) -> Image.Image:
    if page.imagedepth > 1:
        raise MediaError(f"{request.name}: a volume of {page.imagedepth} layers in one page; save them as pages")
    if page.dtype is None or page.dtype.kind not in "buif":
        found = "values of an unknown type" if page.dtype is None else f"{page.dtype} values"
        raise MediaError(f"{request.name}: it holds {found}, expected whole or floating point numbers")
    samples = page.samplesperpixel
    # A tile may be far larger than the image it is part of, and is decoded as a whole.
    height, width = max(page.imagelength, page.tilelength), max(page.imagewidth, page.tilewidth)
    request.check_size(height, width, pixel_bytes=samples * page.dtype.itemsize)
    try:
        values = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise MediaError(missing(request.name, f"a TIFF with {page.compression.name} compression", "tiff")) from None
    # Bands stored apart come first, others last.
    values = np.moveaxis(values.reshape(page.shaped)[:, 0], 0, -1).reshape(page.imagelength, page.imagewidth, samples)

    extras = dict(enumerate(map(int, page.extrasamples), start=samples - len(page.extrasamples)))
    alphas = [band for band, kind in extras.items() if kind in (_PREMULTIPLIED, _ALPHA)]
    bands = [band for band in range(samples) if band not in alphas]
    shown = values[..., bands[:3] if len(bands) >= 3 else bands[0]]
    valid = _valid(shown, _nodata(page))
    eight = eight_bit(shown, request.window, valid)
    if page.photometric == _WHITE_IS_ZERO:
        eight = 255 - eight
    if alphas:
        full = np.iinfo(page.dtype).max if page.dtype.kind in "ui" else 1
        weight = values[..., alphas[0]].astype(np.float32) / np.float32(full)
        weight = weight if eight.ndim == 2 else weight[..., None]
        ink = eight if extras[alphas[0]] == _PREMULTIPLIED else eight * weight
        eight = np.rint(ink + 255 * (1 - weight)).clip(0, 255).astype(np.uint8)
    # As transparent images are laid on white.
    eight[~valid] = 255
    orientation = page.tags.get(ORIENTATION_TAG)
    return upright(Image.fromarray(eight).convert("RGB"), 1 if orientation is None else orientation.value)


def _nodata(page: Any) -> float | None:
    """The value that GDAL notes for pixels without any."""
    tag = page.tags.get(_NODATA_TAG)
    try:
        return None if tag is None else float(str(tag.value).strip(" \0"))
    except ValueError:
        return None


def _valid(shown: np.ndarray, nodata: float | None) -> np.ndarray:
    """Pixels with a value: bool [H, W] of grey [H, W] or colours [H, W, 3]."""
    empty = np.zeros(shown.shape, dtype=bool)
    if shown.dtype.kind == "f":
        empty |= np.isnan(shown)
    if nodata is not None:
        empty |= shown == nodata
    return ~empty if empty.ndim == 2 else ~np.all(empty, axis=-1)


def _read_without_tifffile(request: Request) -> Image.Image:
    """Reads what Pillow reads rightly; of the rest it says what to install."""
    try:
        with opened(request) as image:
            kinds = []
            for place in range(getattr(image, "n_frames", 1)):
                image.seek(place)
                kinds.append(int(image.tag_v2.get(_SUBFILE_TAG, 0)))  # type: ignore[attr-defined]
            full = full_pages(kinds)
            place = full[request.index(len(full), "pages")]
            image.seek(place)
            tags = dict(image.tag_v2)  # type: ignore[attr-defined]
        # Pillow cuts deep colours to their upper 8 bits, and takes nodata for values.
        deep = max(tags.get(_BITS_TAG, (1,))) > 8
        if deep and (tags.get(_SAMPLES_TAG, 1) > 1 or _NODATA_TAG in tags):
            raise MediaError(missing(request.name, "a TIFF of deep colours or with nodata", "tiff"))
        return read_pillow(request, place)
    # What Pillow raises for images and compressions that it does not know.
    except (UnidentifiedImageError, KeyError):
        raise MediaError(missing(request.name, "a TIFF of a kind that Pillow does not read", "tiff")) from None
