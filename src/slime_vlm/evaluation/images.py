"""Open the images and videos of benchmark records, in all the forms that published benchmarks use.

Training records follow stricter rules, see `data.images`. Their paths must not lead out of the image folder, archives
are read in place, and short text is never taken for base64. Benchmarks store base64 of any length, and name bare files
that lie in a folder beside the records.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media import Clip, is_video, open_clip, open_image, open_image_bytes, to_rgb

# Longer texts are base64, not paths.
_LONGEST_PATH = 1024
# Folders beside the records to look in when a record names a bare file.
_IMAGE_FOLDERS = ("images", "image")
_VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def open_visual(value: Any, folder: Path | None = None) -> Image.Image | Clip:
    """Open an image, or a video as a few of its frames.

    Args:
        value: What `open_benchmark_image` accepts, or the path of a video.
        folder: Where relative paths start, or None if there are none.

    Raises:
        MediaError: The value has none of these forms, or cannot be read.
    """
    if isinstance(value, str):
        path = _find(value, folder or Path())
        if path is not None and is_video(path):
            return open_clip(path)
        if path is None and value.lower().endswith(_VIDEO_SUFFIXES):
            where = folder or "the table on the hub"
            raise MediaError(f"{value}: there is no such video in {where}; unpack the videos there, see --data")
    return open_benchmark_image(value, folder)


def open_benchmark_image(value: Any, folder: Path | None = None) -> Image.Image:
    """Open one image as upright RGB.

    Args:
        value: A path, bytes, base64 text (also as a data URL), a mapping with `bytes` or `path`, or a PIL image.
        folder: Where relative paths start, or None if there are none.

    Raises:
        MediaError: The value has none of these forms, or cannot be read.
    """
    if isinstance(value, Image.Image):
        return to_rgb(value)
    if isinstance(value, dict):
        given = value.get("bytes") or value.get("path")
        if given is None:
            raise MediaError(f"an image has the keys {', '.join(value)}, expected bytes or path")
        return open_benchmark_image(given, folder)
    if isinstance(value, bytes):
        return open_image_bytes(value, "the image in the record")
    if isinstance(value, str):
        path = _find(value, folder or Path())
        if path is not None:
            return open_image(path)
        decoded = _decode(value)
        if decoded is not None:
            return open_image_bytes(decoded, "the image in the record")
        raise MediaError(f"{value:.80}: neither an image file in {folder or Path()} nor base64")
    raise MediaError(f"an image is of type {type(value).__name__}, expected a path, bytes or base64")


def _find(value: str, folder: Path) -> Path | None:
    """Return the file that a value names, or None."""
    if len(value) > _LONGEST_PATH:
        return None
    candidates = (folder / value, *(folder / name / value for name in _IMAGE_FOLDERS))
    # os.path returns False for impossible names. Some versions of pathlib raise.
    return next((path for path in candidates if os.path.isfile(path)), None)


def _decode(text: str) -> bytes | None:
    """Return the content of base64 text, or None if it is not base64."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True) or None
    except (binascii.Error, ValueError):
        return None
