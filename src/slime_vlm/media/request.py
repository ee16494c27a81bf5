"""What a reader is asked for: a file, a page and settings. Also the checks and errors that all formats share."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slime_vlm.errors import MediaError, one_line
from slime_vlm.media.colours import Window

MAX_PIXELS = 200_000_000
"""Default limit on height times width: about a 14,000 px square, 800 MB once decoded (Pillow pads RGB to 4 bytes)."""

DPI = 200.0
"""Default resolution of PDF pages: an A4 page becomes 2339 x 1654 pixels."""

MAX_MEMORY = 1_500_000_000
"""Default limit on the memory that opening an image takes, in bytes, working copies included."""

RESULT_BYTES = 8
"""Bytes a pixel of an image that is decoded in the worker: the image there, and the one that is received."""


@dataclass(frozen=True)
class Request:
    """One image to read.

    Attributes:
        path: The file.
        name: The name that messages use, as the user gave it.
        page: The page or frame, counted from 1. None selects the first (HEIC: the main image).
        max_pixels: The largest height times width to decode.
        max_memory: The most memory to take while the file is opened, in bytes.
        dpi: Resolution of PDF pages.
        window: Which grey values to show. None lets the file decide.
        untrusted: Whether the file comes from an untrusted source. Then Pillow tries common formats only.
    """

    path: Path
    name: str
    page: int | None = None
    max_pixels: int = MAX_PIXELS
    dpi: float = DPI
    window: Window | None = None
    untrusted: bool = False
    max_memory: int = MAX_MEMORY

    def to_json(self) -> dict[str, Any]:
        """Return the request as values of JSON. The path is absolute, because the current folder may change."""
        return {**asdict(self), "path": os.path.abspath(self.path)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Request:
        """Return the request that `to_json` described."""
        window = None if values["window"] is None else Window(**values["window"])
        return cls(**{**values, "path": Path(values["path"]), "window": window})

    def index(self, count: int, what: str, default: int = 0) -> int:
        """Return the index of the requested page, counted from 0.

        Args:
            count: The number of pages.
            what: What they are called, such as `pages` or `frames`.
            default: The index to use when no page is requested.

        Raises:
            MediaError: The file has no such page.
        """
        if self.page is None and count:
            return default
        if self.page is not None and 1 <= self.page <= count:
            return self.page - 1
        if not count:
            raise MediaError(f"{self.name}: it has no {what}, expected at least one")
        known = f"it has one {what.removesuffix('s')}" if count == 1 else f"it has {count} {what}"
        last = "#1" if count == 1 else f"#1 to #{count}"
        raise MediaError(f"{self.name}: there is no #{self.page}, {known}; ask for {last}")

    def check_size(self, height: int, width: int, pixel_bytes: float = RESULT_BYTES, advice: str = "") -> None:
        """Check the limits on pixels and memory. Readers call this before they decode anything.

        Args:
            height: Height in pixels.
            width: Width in pixels.
            pixel_bytes: Bytes that are needed for each pixel, working copies and the finished image included.
            advice: Another remedy, appended to the advice to raise the limit.

        Raises:
            MediaError: The image is larger than a limit or has no pixels.
        """
        if height < 1 or width < 1:
            raise MediaError(f"{self.name}: {width} x {height} pixels, expected at least 1 x 1")
        pixels = height * width
        if pixels > self.max_pixels:
            raise MediaError(
                f"{self.name}: {width} x {height} is {pixels / 1e6:,.1f} million pixels, the limit is "
                f"{self.max_pixels / 1e6:,.1f} million; raise it with --max-pixels {pixels}{advice}"
            )
        needed = math.ceil(pixels * pixel_bytes)
        if needed > self.max_memory:
            raise MediaError(
                f"{self.name}: {width} x {height} takes {needed / 1e6:,.0f} MB to open ({pixel_bytes:g} bytes a "
                f"pixel), the limit is {self.max_memory / 1e6:,.0f} MB; raise it with --max-memory "
                f"{math.ceil(needed / 1e6)}{advice}"
            )


class MediaMemoryError(MediaError):
    """Opening a file takes more memory than is allowed, or than there is. Found out only while it was opened."""


def memory_error(request: Request) -> MediaMemoryError:
    """Return the error for a file that takes more memory than is allowed, or than there is."""
    return MediaMemoryError(
        f"{request.name}: opening it takes more than {request.max_memory / 1e6:,.0f} MB of memory, or more than is "
        "free; raise the limit with --max-memory"
    )


def damaged(name: str, what: str, error: Exception) -> MediaError:
    """Return the error for a file that a decoder rejects.

    Args:
        name: The name that messages use.
        what: What the file was opened as: `image` or `video`.
        error: What the decoder raised.
    """
    return MediaError(f"{name}: the {what} is damaged or incomplete ({one_line(error)}); make a new copy of it")
