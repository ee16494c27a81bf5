"""Decode files in this process: choose the reader by the content, and report failures in one line.

`decoding_worker` runs these functions for every format whose cost is not known before it is decoded. `opening` calls
`read_image` itself for the others.

To add an image format, write one module beside this one that defines a `FileType`, and add it to `FILE_TYPES` below.
`heic.py` is the shortest example. If a package reads the format, import it with `extras.import_extra`, and name the
package in the extra of `pyproject.toml`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from slime_vlm.errors import MediaError
from slime_vlm.media.dicom import DICOM
from slime_vlm.media.file_type import HEAD_BYTES, FileType
from slime_vlm.media.heic import HEIC
from slime_vlm.media.pdf import PDF
from slime_vlm.media.pillow import PILLOW, decodes_in_process
from slime_vlm.media.request import Request, damaged
from slime_vlm.media.tiff import TIFF
from slime_vlm.media.tiff_regions import decode_region, find_tiled
from slime_vlm.media.video import VIDEO, Clip, read_clip

_Read = TypeVar("_Read")

# The first type that recognizes a file reads it. The order matters: a DICOM preamble may hold a TIFF header, AVIF has
# brands of HEIC, HEIC has the container of MP4, and a PDF may begin with any other bytes.
FILE_TYPES: tuple[FileType, ...] = (DICOM, TIFF, PILLOW, HEIC, VIDEO, PDF)


def read_image(request: Request) -> Image.Image:
    """Decode an image as 8-bit RGB, turned upright.

    Raises:
        MediaError: See `opening.open_image`.
        MemoryError: Memory is lacking.
    """
    return _reading(request, "image", lambda file_type: file_type.read(request))


def read_frames(request: Request, num_frames: int) -> Clip:
    """Decode frames of a video.

    Raises:
        MediaError: See `opening.open_clip`.
        MemoryError: Memory is lacking.
    """

    def read(file_type: FileType) -> Clip:
        if file_type is not VIDEO:
            raise MediaError(f"{request.name}: this is not a video, expected one; open_image opens images")
        return read_clip(request, num_frames)

    return _reading(request, "video", read)


def read_layout(request: Request, least_pixels: int) -> tuple[int, int, int] | None:
    """Find the page of a TIFF that can be decoded by regions, see `tiff_regions.find_tiled`.

    Raises:
        MediaError: The file is damaged, or `find_tiled` raises it.
        MemoryError: Memory is lacking.
    """
    return _reading(
        request, "image", lambda file_type: find_tiled(request, least_pixels) if file_type is TIFF else None
    )


def read_region(request: Request, index: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Decode a region of a TIFF, see `tiff_regions.decode_region`.

    Raises:
        MediaError: This part of the file is damaged.
        OSError: The system cannot read the file: it is gone, for example.
        MemoryError: Memory is lacking.
    """
    try:
        return decode_region(request, index, box)
    except MemoryError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(request.name, "image", error) from error
    # Decoders raise many kinds of errors for damaged bytes.
    except Exception as error:
        raise damaged(request.name, "image", error) from error


class _Counted(MediaError):
    def __init__(self, count: int) -> None:
        super().__init__(f"{count} pages")
        self.count = count


class _CountingRequest(Request):
    # Every reader asks which page to take before it decodes one, and this ends it there.
    def index(self, count: int, what: str, default: int = 0) -> int:
        raise _Counted(count)


def read_page_count(request: Request) -> int:
    """Count pages or frames without decoding one.

    Raises:
        MediaError: See `opening.open_image`.
    """
    # Pillow's files are asked for pages only by those who want one.
    counting = _CountingRequest(request.path, request.name, page=1, untrusted=request.untrusted)
    try:
        read_image(counting)
    except _Counted as found:
        return found.count
    return 1


def needs_worker(request: Request) -> bool:
    """Tell whether an image must be decoded in the worker. The answer is False for files that cannot be read."""
    try:
        return not decodes_in_process(request, _head(request.path))
    except OSError:
        return False


def type_of(path: Path) -> FileType:
    """Return the type of a file. Pillow gets all files that no type recognizes."""
    head = _head(path)
    by_content = [file_type for file_type in FILE_TYPES if file_type.recognizes(head)]
    by_name = [file_type for file_type in FILE_TYPES if path.suffix.lower() in file_type.suffixes]
    return [*by_content, *by_name, PILLOW][0]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _reading(request: Request, what: str, read: Callable[[FileType], _Read]) -> _Read:
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
