"""Open images and videos: find the file and page, and decode it here or in the worker.

PNG, JPEG, WebP and GIF are decoded in this process, since their cost is known from their header. All other files are
decoded in a worker process with limits on memory and computing time (`worker_pool`).
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media import worker_pool
from slime_vlm.media.colours import Window
from slime_vlm.media.decoding import needs_worker, read_image, type_of
from slime_vlm.media.download import MAX_DOWNLOAD, download, is_address
from slime_vlm.media.request import DPI, MAX_MEMORY, MAX_PIXELS, Request, memory_error
from slime_vlm.media.tiff import TIFF
from slime_vlm.media.tiled_image import TiledImage, open_tiled
from slime_vlm.media.video import NUM_FRAMES, VIDEO, Clip


def open_image(
    spec: str | Path,
    max_pixels: int = MAX_PIXELS,
    *,
    dpi: float = DPI,
    window: Window | None = None,
    allow_url: bool = False,
    max_download: int = MAX_DOWNLOAD,
    max_memory: int = MAX_MEMORY,
    untrusted: bool = False,
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
        max_memory: The most memory to take while the file is opened, in bytes, working copies included.
        untrusted: Whether the file comes from others. Then Pillow tries common formats only, as for addresses.

    Returns:
        An RGB image that does not depend on the file any more.

    Raises:
        MediaError: The file is missing, empty, a folder, not an image, damaged, or larger than `max_pixels`. Or opening
            it takes more than `max_memory` or too much time, it has no such page, the package for its format is not
            installed, or an address is not allowed, not public or cannot be downloaded.
    """
    file, page = check_spec(spec, allow_url)
    request = Request(Path(file), file, page, max_pixels, dpi, window, untrusted, max_memory)
    if not is_address(file):
        return _read_image(request)
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        target = Path(folder) / "download"
        download(file, target, max_download)
        return _read_image(replace(request, path=target, untrusted=True))


def open_clip(
    spec: str | Path, num_frames: int = NUM_FRAMES, max_pixels: int = MAX_PIXELS, max_memory: int = MAX_MEMORY
) -> Clip:
    """Open a video file as a few frames, evenly spread in time and turned upright.

    Args:
        spec: A file.
        num_frames: How many frames to take. A video with fewer frames gives all of them.
        max_pixels: The largest height times width of a frame to decode.
        max_memory: As for `open_image`.

    Raises:
        MediaError: The file is missing, empty, a folder, an address, not a video, damaged, or larger than `max_pixels`,
            opening it takes too much memory or time, or PyAV is not installed.
    """
    file, page = check_spec(spec)
    request = Request(Path(file), file, page, max_pixels, max_memory=max_memory)
    reply = worker_pool.run("clip", request, num_frames=num_frames)
    return Clip(reply.images, reply.value)


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
    max_pixels, max_memory = options.get("max_pixels", MAX_PIXELS), options.get("max_memory", MAX_MEMORY)
    if is_video(file):
        return open_clip(spec, num_frames, max_pixels, max_memory)
    request = Request(Path(file), file, page, max_pixels, max_memory=max_memory)
    tiled = open_tiled(request) if _is_tiff(request.path) else None
    return open_image(spec, **options) if tiled is None else tiled


def _is_tiff(path: Path) -> bool:
    try:
        return type_of(path) is TIFF
    except OSError:
        return False


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
    max_memory: int = MAX_MEMORY,
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
        max_memory: As for `open_image`.
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
        return _read_image(Request(target, name, page, max_pixels, dpi, window, untrusted=True, max_memory=max_memory))


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
        return int(worker_pool.run("count_pages", Request(target, name, untrusted=True)).value)


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
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MediaError(f"{file}: no such file") from None
    # A name that is too long, a loop of links, a folder that may not be entered, a null byte.
    except (OSError, ValueError) as error:
        raise MediaError(f"{file:.200}: it cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{file}: this is a folder, expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{file}: this is a pipe or a device, expected a file")
    if status.st_size == 0:
        raise MediaError(f"{file}: the file is empty, expected an image")
    return file, page


def _split(spec: str) -> tuple[str, int | None]:
    """Split off a page number, unless a file has the whole name."""
    parts = re.fullmatch(r"(.+)#([0-9]{1,9})", spec, re.DOTALL)
    if parts is None or (not is_address(spec) and os.path.exists(spec)):
        return spec, None
    return parts[1], int(parts[2])


def _read_image(request: Request) -> Image.Image:
    if needs_worker(request):
        return worker_pool.run("image", request).images[0]
    try:
        return read_image(request)
    except MemoryError:
        raise memory_error(request) from None
