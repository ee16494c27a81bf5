"""What is asked of a reader: a file, a page of it, and the settings; with the checks that all formats share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from slime_vlm.errors import MediaError
from slime_vlm.media.colours import Window

MAX_PIXELS = 200_000_000
"""Default limit on height times width: about a 14,000 px square, 800 MB once decoded (Pillow pads RGB to 4 bytes)."""

DPI = 200.0
"""Default resolution of PDF pages: an A4 page becomes 2339 x 1654 pixels."""

# Four bands of 32 bits; a pixel that takes more counts as several.
_USUAL_PIXEL_BYTES = 16


@dataclass(frozen=True)
class Request:
    """One image to read.

    Attributes:
        path: the file.
        name: what the user calls it, for messages.
        page: its page or frame, counted from 1; None for the first (HEIC: the main one).
        max_pixels: the largest height times width to decode.
        dpi: resolution of PDF pages.
        window: which grey values to show, None to decide by the file.
        downloaded: whether it comes from elsewhere, so that only common formats are tried on it.
    """

    path: Path
    name: str
    page: int | None = None
    max_pixels: int = MAX_PIXELS
    dpi: float = DPI
    window: Window | None = None
    downloaded: bool = False

    def index(self, count: int, what: str, default: int = 0) -> int:
        """Place of the page that is asked for, counted from 0.

        Args:
            count: how many there are.
            what: what they are called, such as `pages`.
            default: the place where no page is asked for.

        Raises:
            MediaError: there is no such page.
        """
        if self.page is None and count:
            return default
        if self.page is not None and 1 <= self.page <= count:
            return self.page - 1
        if not count:
            raise MediaError(f"{self.name}: it has no {what}, at least one is expected")
        known = f"it has one {what.removesuffix('s')}" if count == 1 else f"it has {count} {what}"
        last = "#1" if count == 1 else f"#1 to #{count}"
        raise MediaError(f"{self.name}: there is no #{self.page}, {known}; ask for {last}")

    def check_size(self, height: int, width: int, pixel_bytes: int = 0, advice: str = "") -> None:
        """Checks the pixel limit; to be called before anything is decoded.

        Args:
            height: height in pixels.
            width: width in pixels.
            pixel_bytes: what a decoded pixel takes, where that may be much.
            advice: what else may help, beside raising the limit.

        Raises:
            MediaError: the image is larger than the limit, or has no pixels.
        """
        if height < 1 or width < 1:
            raise MediaError(f"{self.name}: {width} x {height} pixels, at least 1 x 1 is expected")
        pixels = math.ceil(height * width * max(1.0, pixel_bytes / _USUAL_PIXEL_BYTES))
        if pixels > self.max_pixels:
            deep = f" with {pixel_bytes} bytes a pixel" if pixels > height * width else ""
            raise MediaError(
                f"{self.name}: {width} x {height}{deep} is {pixels / 1e6:,.1f} million pixels, the limit is "
                f"{self.max_pixels / 1e6:,.1f} million; raise it with --max-pixels {pixels}{advice}"
            )
