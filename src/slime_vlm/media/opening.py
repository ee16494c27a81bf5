"""Open images and videos: find the file and page, choose the reader by the content, report failures in one line.

To add an image format, write one module beside this one that defines a `FileType`, and add it to `FILE_TYPES` below.
`heic.py` is the shortest example. If a package reads the format, import it with `extras.import_extra`, and name the
package in the extra of `pyproject.toml`.
"""

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
from slime_vlm.media.dicom import DICOM
from slime_vlm.media.download import MAX_DOWNLOAD, download, is_address
from slime_vlm.media.file_type import HEAD_BYTES, FileType
from slime_vlm.media.heic import HEIC
from slime_vlm.media.pdf import PDF
from slime_vlm.media.pillow import PILLOW
from slime_vlm.media.request import DPI, MAX_PIXELS, Request, damaged
from slime_vlm.media.tiff import TIFF
from slime_vlm.media.tiled_image import TiledImage, open_tiled
from slime_vlm.media.video import NUM_FRAMES, VIDEO, Clip, read_clip

_Opened = TypeVar("_Opened")

# The first type that recognizes a file reads it. The order matters: a DICOM preamble may hold a TIFF header, AVIF has
# brands of HEIC, HEIC has the container of MP4, and a PDF may begin with any other bytes.
FILE_TYPES: tuple[FileType, ...] = (DICOM, TIFF, PILLOW, HEIC, VIDEO, PDF)


def open_image(
    spec: str | Path,
    max_pixels: int = MAX_PIXELS,
    *,
    dpi: float = DPI,
    window: Window | None = None,
    allow_url: bool = False,
    max_download: int = MAX_DOWNLOAD,
) -> Image.Image:
    """Open an image as 8-bit RGB, turned upright.

    The content of the file decides how it is read, not its name. Transparent pixels are blended with white, and deep
    grey values are scaled to 8 bits as `colours.eight_bit` describes.

    Args:
        spec: A file, or a page of it such as `scan.pdf#3` (TIFF, PDF, DICOM, HEIC, GIF). Pages are counted from 1, and
            the first is the default. If a file with the whole name exists, `#` included, that file is opened.
        max_pixels: The largest height times width to decode.
        dpi: Resolution of PDF pages.
        window: Which values of deep grey to show. The default is the file's own window, if it has one.
        allow_url: Whether `spec` may be an http or https address.
        max_download: The largest download in bytes.

    Returns:
        An RGB image that does not depend on the file any more.

    Raises:
        MediaError: The file is missing, empty, a folder, not an image, damaged, or larger than `max_pixels`. Or it has
            no such page, the package for its format is not installed, or an address is not allowed, not public or
            cannot be downloaded.
    """
    file, page = check_spec(spec, allow_url)
    request = Request(Path(file), file, page, max_pixels, dpi, window)
    if not is_address(file):
        return _read_image(request)
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        target = Path(folder) / "download"
        download(file, target, max_download)
        return _read_image(replace(request, path=target, untrusted=True))


def open_clip(spec: str | Path, num_frames: int = NUM_FRAMES, max_pixels: int = MAX_PIXELS) -> Clip:
    """Open a video file as a few frames, evenly spread in time and turned upright.

    Args:
        spec: A file.
        num_frames: How many frames to take. A video with fewer frames gives all of them.
        max_pixels: The largest height times width of a frame to decode.

    Raises:
        MediaError: The file is missing, empty, a folder, an address, not a video, damaged, or larger than `max_pixels`,
            or PyAV is not installed.
    """
    file, page = check_spec(spec)
    request = Request(Path(file), file, page, max_pixels)

    def read(file_type: FileType) -> Clip:
        if file_type is not VIDEO:
            raise MediaError(f"{file}: this is not a video, expected one; open_image opens images")
        return read_clip(request, num_frames)

    return _reading(request, "video", read)


OpenedInput: TypeAlias = Image.Image | TiledImage | Clip
"""What the model can be asked about: an image, a large image that stays in its file, or the frames of a video."""


def open_input(spec: str | Path, num_frames: int = NUM_FRAMES, **options: Any) -> OpenedInput:
    """Open a video as `open_clip` does, and an image as `open_image` does.

    A large TIFF image that can be decoded by regions stays in its file (`tiled_image.open_tiled`).

    Args:
        spec: See `open_image`.
        num_frames: See `open_clip`.
        **options: The options of `open_image`.

    Raises:
        MediaError: See `open_image` and `open_clip`.
    """
    file, page = check_spec(spec, bool(options.get("allow_url", False)))
    if is_address(file):
        return open_image(spec, **options)
    max_pixels = options.get("max_pixels", MAX_PIXELS)
    if is_video(file):
        return open_clip(spec, num_frames, max_pixels)
    request = Request(Path(file), file, page, max_pixels)
    tiled = _reading(request, "image", lambda file_type: open_tiled(request) if file_type is TIFF else None)
    return open_image(spec, **options) if tiled is None else tiled


def is_video(file: str | Path) -> bool:
    """Tell whether a file holds a video, by its first bytes. The answer is False for files that cannot be read."""
    try:
        return type_of(Path(file)) is VIDEO
    except OSError:
        return False


def open_image_bytes(
    content: bytes,
    name: str,
    max_pixels: int = MAX_PIXELS,
    *,
    page: int | None = None,
    dpi: float = DPI,
    window: Window | None = None,
) -> Image.Image:
    """Open an image from memory. As for downloads, Pillow tries common formats only.

    Args:
        content: The bytes of the file.
        name: The name that messages use.
        max_pixels: As for `open_image`.
        page: The page or frame, counted from 1. None selects the first.
        dpi: As for `open_image`.
        window: As for `open_image`.

    Raises:
        MediaError: The content is empty, not an image, damaged, or larger than `max_pixels`.
    """
    if not content:
        raise MediaError(f"{name}: it is empty, expected an image")
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        # Some readers accept only files.
        target = Path(folder) / "image"
        target.write_bytes(content)
        return _read_image(Request(target, name, page, max_pixels, dpi, window, untrusted=True))


class _Counted(MediaError):
    def __init__(self, count: int) -> None:
        super().__init__(f"{count} pages")
        self.count = count


class _CountingRequest(Request):
    # Every reader asks which page to take before it decodes one, and this ends it there.
    def index(self, count: int, what: str, default: int = 0) -> int:
        raise _Counted(count)


def count_pages(content: bytes, name: str) -> int:
    """Count the pages or frames of an image in memory, without decoding one.

    Args:
        content: The bytes of the file.
        name: The name that messages use.

    Raises:
        MediaError: See `open_image_bytes`.
    """
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        target = Path(folder) / "image"
        target.write_bytes(content)
        try:
            # Pillow's files are asked for pages only by those who want one.
            _read_image(_CountingRequest(target, name, page=1, untrusted=True))
        except _Counted as found:
            return found.count
    return 1


def check_spec(spec: str | Path, allow_url: bool = False) -> tuple[str, int | None]:
    """Split a spec into file and page, and check that the file can be one, without reading it.

    Args:
        spec: As for `open_image`.
        allow_url: As for `open_image`.

    Returns:
        The file or address, and the page.

    Raises:
        MediaError: The file is missing, empty or a folder, or an address is not allowed.
    """
    file, page = _split(str(spec))
    if is_address(file):
        if not allow_url:
            raise MediaError(f"{file}: this is an address; nothing is downloaded without --allow-url")
        return file, page
    path = Path(file)
    if path.is_dir():
        raise MediaError(f"{file}: this is a folder, expected a file")
    if not path.exists():
        raise MediaError(f"{file}: no such file")
    if path.stat().st_size == 0:
        raise MediaError(f"{file}: the file is empty, expected an image")
    return file, page


def type_of(path: Path) -> FileType:
    """Return the type of a file. Pillow gets all files that no type recognizes."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    by_content = [file_type for file_type in FILE_TYPES if file_type.recognizes(head)]
    by_name = [file_type for file_type in FILE_TYPES if path.suffix.lower() in file_type.suffixes]
    return [*by_content, *by_name, PILLOW][0]


def _split(spec: str) -> tuple[str, int | None]:
    """Split off a page number, unless a file has the whole name."""
    parts = re.fullmatch(r"(.+)#([0-9]{1,9})", spec, re.DOTALL)
    if parts is None or (not is_address(spec) and Path(spec).exists()):
        return spec, None
    return parts[1], int(parts[2])


def _read_image(request: Request) -> Image.Image:
    return _reading(request, "image", lambda file_type: file_type.read(request))


def _reading(request: Request, what: str, read: Callable[[FileType], _Opened]) -> _Opened:
    """Read a file by its type, and turn every failure into one line."""
    name = request.name
    try:
        return read(type_of(request.path))
    except (MediaError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise MediaError(f"{name}: not an image, or in a format that Pillow does not read") from None
    except PermissionError:
        raise MediaError(f"{name}: no permission to read it") from None
    except OSError as error:
        if "Ghostscript" not in str(error):
            raise damaged(name, what, error) from error
        raise MediaError(f"{name}: an EPS file needs Ghostscript, which is not installed; convert it to PNG") from None
    # Decoders raise many kinds of errors for damaged bytes (SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        raise damaged(name, what, error) from error
