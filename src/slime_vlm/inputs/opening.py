"""The single entry for pictures: which file and page are meant, which reader it is for, and one line if it fails."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from slime_vlm.errors import InputError
from slime_vlm.inputs.address import MAX_DOWNLOAD, download, is_address
from slime_vlm.inputs.colours import Window
from slime_vlm.inputs.dicom import read_dicom
from slime_vlm.inputs.heic import read_heic
from slime_vlm.inputs.kinds import Kind, kind_of
from slime_vlm.inputs.pdf import read_pdf
from slime_vlm.inputs.pillow import read_pillow
from slime_vlm.inputs.request import DPI, MAX_PIXELS, Request
from slime_vlm.inputs.tiff import read_tiff

_READERS: dict[Kind, Callable[[Request], Image.Image]] = {
    "dicom": read_dicom,
    "heic": read_heic,
    "pdf": read_pdf,
    "tiff": read_tiff,
    "other": read_pillow,
}


def open_image(
    spec: str | Path,
    max_pixels: int = MAX_PIXELS,
    *,
    dpi: float = DPI,
    window: Window | None = None,
    allow_url: bool = False,
    max_download: int = MAX_DOWNLOAD,
) -> Image.Image:
    """Opens a picture as 8-bit RGB, turned upright.

    What the file holds decides how it is read, not its name. Transparency is laid on white, and deep grey values are
    scaled to 8 bits as `colours.eight_bit` describes.

    Args:
        spec: a file, or a page of it such as `scan.pdf#3` (TIFF, PDF, DICOM, HEIC, GIF; counted from 1, the first by
            default). A file whose name holds a `#` is taken as it is.
        max_pixels: the largest height times width to decode.
        dpi: resolution of PDF pages.
        window: which values of deep grey to show; by default the file's own window where it has one.
        allow_url: whether `spec` may be an http or https address.
        max_download: the largest download in bytes.

    Returns:
        An RGB picture that no longer depends on the file.

    Raises:
        InputError: the file is missing, empty, a folder, not a picture, damaged, or larger than `max_pixels`; it has no
            such page; the package for its format is not installed; an address is not allowed, not public, or fails.
    """
    file, page = check_spec(spec, allow_url)
    request = Request(Path(file), file, page, max_pixels, dpi, window)
    if not is_address(file):
        return _read(request)
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        target = Path(folder) / "download"
        download(file, target, max_download)
        return _read(replace(request, path=target, downloaded=True))


def open_image_bytes(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens a picture that lies in memory; as with downloads, only common formats are tried.

    Args:
        content: the file's bytes.
        name: what messages call it.
        max_pixels: as for `open_image`.

    Raises:
        InputError: it is empty, not a picture, damaged, or larger than `max_pixels`.
    """
    if not content:
        raise InputError(f"{name}: it is empty, a picture is expected")
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        # Some readers take files only.
        target = Path(folder) / "picture"
        target.write_bytes(content)
        return _read(Request(target, name, max_pixels=max_pixels, downloaded=True))


def check_spec(spec: str | Path, allow_url: bool = False) -> tuple[str, int | None]:
    """Finds what is meant, without reading it.

    Args:
        spec: as for `open_image`.
        allow_url: as for `open_image`.

    Returns:
        The file or address, and the page.

    Raises:
        InputError: the file is missing, empty or a folder, or an address is not allowed.
    """
    file, page = _split(str(spec))
    if is_address(file):
        if not allow_url:
            raise InputError(f"{file}: an address; nothing is downloaded without --allow-url")
        return file, page
    path = Path(file)
    if path.is_dir():
        raise InputError(f"{file}: this is a folder, a picture file is expected")
    if not path.exists():
        raise InputError(f"{file}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{file}: the file is empty, a picture is expected")
    return file, page


def _split(spec: str) -> tuple[str, int | None]:
    """Splits a page number off, unless the whole is a file's name."""
    parts = re.fullmatch(r"(.+)#([0-9]{1,9})", spec, re.DOTALL)
    if parts is None or (not is_address(spec) and Path(spec).exists()):
        return spec, None
    return parts[1], int(parts[2])


def _read(request: Request) -> Image.Image:
    name = request.name
    try:
        kind = kind_of(request.path)
        if kind not in _READERS:
            raise InputError(f"{name}: a video, a picture is expected; save a frame of it as a picture")
        return _READERS[kind](request)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a picture, or of a kind that Pillow does not read") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it") from None
    # Decoders fed with damaged bytes fail in many ways (SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{name}: the picture is damaged or incomplete ({found}); make a new copy of it") from error
