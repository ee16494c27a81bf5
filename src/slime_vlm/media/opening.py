"""The single entry for images and videos: which file and page, which reader it is for, and one line if it fails."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from PIL import Image, UnidentifiedImageError

from slime_vlm.errors import MediaError
from slime_vlm.media.colours import Window
from slime_vlm.media.dicom import read_dicom
from slime_vlm.media.download import MAX_DOWNLOAD, download, is_address
from slime_vlm.media.file_type import Kind, kind_of
from slime_vlm.media.heic import read_heic
from slime_vlm.media.pdf import read_pdf
from slime_vlm.media.pillow import read_pillow
from slime_vlm.media.request import DPI, MAX_PIXELS, Request
from slime_vlm.media.tiff import read_tiff
from slime_vlm.media.tiled_image import TiledImage, open_tiled
from slime_vlm.media.video import NUM_FRAMES, Clip, read_clip

_Read = TypeVar("_Read")

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
    """Opens an image as 8-bit RGB, turned upright.

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
        An RGB image that no longer depends on the file.

    Raises:
        MediaError: the file is missing, empty, a folder, not an image, damaged, or larger than `max_pixels`; it has no
            such page; the package for its format is not installed; an address is not allowed, not public, or fails.
    """
    file, page = check_spec(spec, allow_url)
    request = Request(Path(file), file, page, max_pixels, dpi, window)
    if not is_address(file):
        return _read_image(request)
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        target = Path(folder) / "download"
        download(file, target, max_download)
        return _read_image(replace(request, path=target, downloaded=True))


def open_clip(spec: str | Path, num_frames: int = NUM_FRAMES, max_pixels: int = MAX_PIXELS) -> Clip:
    """Opens a video file as a few frames, evenly spread in time and turned upright.

    Args:
        spec: a file.
        num_frames: how many frames to take; a video that has fewer gives all of them.
        max_pixels: the largest height times width of a frame to decode.

    Raises:
        MediaError: the file is missing, empty, a folder, an address, not a video, damaged, or larger than `max_pixels`;
            PyAV is not installed.
    """
    file, page = check_spec(spec)
    request = Request(Path(file), file, page, max_pixels)

    def read(kind: Kind) -> Clip:
        if kind != "video":
            raise MediaError(f"{file}: an image, a video is expected")
        return read_clip(request, num_frames)

    return _reading(request, "video", read)


OpenedInput: TypeAlias = Image.Image | TiledImage | Clip
"""What can be asked about: an image, a large one that stays in its file, or the frames of a video."""


def open_input(spec: str | Path, num_frames: int = NUM_FRAMES, **options: Any) -> OpenedInput:
    """Opens what a file holds: a video as `open_clip` does, an image as `open_image` does.

    A large TIFF image that can be decoded by regions stays in its file (`tiled_image.open_tiled`).

    Args:
        spec: see `open_image`.
        num_frames: see `open_clip`.
        **options: those of `open_image`.

    Raises:
        MediaError: see `open_image` and `open_clip`.
    """
    file, page = check_spec(spec, bool(options.get("allow_url", False)))
    if is_address(file):
        return open_image(spec, **options)
    max_pixels = options.get("max_pixels", MAX_PIXELS)
    if is_video(file):
        return open_clip(spec, num_frames, max_pixels)
    request = Request(Path(file), file, page, max_pixels)
    tiled = _reading(request, "image", lambda kind: open_tiled(request) if kind == "tiff" else None)
    return open_image(spec, **options) if tiled is None else tiled


def is_video(file: str | Path) -> bool:
    """Tells whether a file holds a video, by its first bytes; what cannot be read holds none."""
    try:
        return kind_of(Path(file)) == "video"
    except OSError:
        return False


def open_image_bytes(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image that lies in memory; as with downloads, only common formats are tried.

    Args:
        content: the file's bytes.
        name: what messages call it.
        max_pixels: as for `open_image`.

    Raises:
        MediaError: it is empty, not an image, damaged, or larger than `max_pixels`.
    """
    if not content:
        raise MediaError(f"{name}: it is empty, an image is expected")
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        # Some readers take files only.
        target = Path(folder) / "image"
        target.write_bytes(content)
        return _read_image(Request(target, name, max_pixels=max_pixels, downloaded=True))


def check_spec(spec: str | Path, allow_url: bool = False) -> tuple[str, int | None]:
    """Finds what is meant, without reading it.

    Args:
        spec: as for `open_image`.
        allow_url: as for `open_image`.

    Returns:
        The file or address, and the page.

    Raises:
        MediaError: the file is missing, empty or a folder, or an address is not allowed.
    """
    file, page = _split(str(spec))
    if is_address(file):
        if not allow_url:
            raise MediaError(f"{file}: an address; nothing is downloaded without --allow-url")
        return file, page
    path = Path(file)
    if path.is_dir():
        raise MediaError(f"{file}: this is a folder, an image file is expected")
    if not path.exists():
        raise MediaError(f"{file}: no such file")
    if path.stat().st_size == 0:
        raise MediaError(f"{file}: the file is empty, an image is expected")
    return file, page


def _split(spec: str) -> tuple[str, int | None]:
    """Splits a page number off, unless the whole is a file's name."""
    parts = re.fullmatch(r"(.+)#([0-9]{1,9})", spec, re.DOTALL)
    if parts is None or (not is_address(spec) and Path(spec).exists()):
        return spec, None
    return parts[1], int(parts[2])


def _read_image(request: Request) -> Image.Image:
    def read(kind: Kind) -> Image.Image:
        if kind == "video":
            where = "no video is read from here" if request.downloaded else "open_clip reads its frames"
            raise MediaError(f"{request.name}: a video, an image is expected; {where}")
        return _READERS[kind](request)

    return _reading(request, "image", read)


def _reading(request: Request, what: str, read: Callable[[Kind], _Read]) -> _Read:
    """Reads a file by its kind; whatever goes wrong is told in one line."""
    name = request.name
    try:
        return read(kind_of(request.path))
    except (MediaError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise MediaError(f"{name}: not an image, or of a kind that Pillow does not read") from None
    except PermissionError:
        raise MediaError(f"{name}: no permission to read it") from None
    # Decoders fed with damaged bytes fail in many ways (SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise MediaError(f"{name}: the {what} is damaged or incomplete ({found}); make a new copy of it") from error
