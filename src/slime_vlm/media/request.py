"""What a reader is asked for: a file, a page and settings. Also the checks and errors that all formats share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from slime_vlm.errors import MediaError, one_line
from slime_vlm.media.colours import Window

MAX_PIXELS = 200_000_000
"""Default limit on height times width: about a 14,000 px square, 800 MB once decoded (Pillow pads RGB to 4 bytes)."""

DPI = 200.0
"""Default resolution of PDF pages: an A4 page becomes 2339 x 1654 pixels."""

# Four bands of 32 bits. A pixel with more bytes counts as several.
_USUAL_PIXEL_BYTES = 16


@dataclass(frozen=True)
class Request:
    """One image to read.

    Attributes:
        path: The file.
        name: The name that messages use, as the user gave it.
        page: The page or frame, counted from 1. None selects the first (HEIC: the main image).
        max_pixels: The largest height times width to decode.
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

    def check_size(self, height: int, width: int, pixel_bytes: int = 0, advice: str = "") -> None:
        """Check the pixel limit. Readers call this before they decode anything.

        Args:
            height: Height in pixels.
            width: Width in pixels.
            pixel_bytes: Bytes of a decoded pixel, for formats where they may exceed 16.
            advice: Another remedy, appended to the advice to raise the limit.

        Raises:
            MediaError: The image is larger than the limit or has no pixels.
        """
        if height < 1 or width < 1:
            raise MediaError(f"{self.name}: {width} x {height} pixels, expected at least 1 x 1")
        pixels = math.ceil(height * width * max(1.0, pixel_bytes / _USUAL_PIXEL_BYTES))
        if pixels > self.max_pixels:
            deep = f" with {pixel_bytes} bytes a pixel" if pixels > height * width else ""
            raise MediaError(
                f"{self.name}: {width} x {height}{deep} is {pixels / 1e6:,.1f} million pixels, the limit is "
                f"{self.max_pixels / 1e6:,.1f} million; raise it with --max-pixels {pixels}{advice}"
            )


def damaged(name: str, what: str, error: Exception) -> MediaError:
    """Return the error for a file that a decoder rejects.

    Args:
        name: The name that messages use.
        what: What the file was opened as: `image` or `video`.
        error: What the decoder raised.
    """
    return MediaError(f"{name}: the {what} is damaged or incomplete ({one_line(error)}); make a new copy of it")
