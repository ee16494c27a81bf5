"""Rows of a scaled image, a band at a time: the pixels of `Image.resize`, bit for bit, and never all of it at once.

Pillow scales in two passes, across and down, and rounds to 8 bits after each. Across, every row stands alone, so a band
is scaled by Pillow itself. Down, Pillow takes a part of the result only by a box in single precision, which moves some
pixels by a grey level; so that pass is written out here, with Pillow's whole-number weights.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from slime_vlm.media import TiledImage

# Fractional bits of Pillow's weights for 8-bit channels.
_BITS = 22
# Rows of the source that are held at a time.
_SOURCE_ROWS = 1024
# Reach of the bicubic filter to either side, in pixels of the coarser of the two images.
_REACH = 2.0


class RowBands:
    """An image scaled by the bicubic filter, of which any rows can be had.

    Args:
        image: The image, RGB; or what has its size and `crop`.
        height: Height after scaling.
        width: Width after scaling.
    """

    def __init__(self, image: Image.Image | TiledImage, height: int, width: int) -> None:
        self.image, self.height, self.width = image, height, width
        self._first, self._weights = bicubic_weights(image.height, height)
        self._down_first = down_first(image.height, image.width, height, width)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop (not included) of the scaled image, uint8 [stop - start, width, 3]."""
        # Every row stands alone, so a band that takes too many rows of the source comes in pieces.
        piece = max(1, _SOURCE_ROWS * self.height // self.image.height)
        pieces = [self._piece(first, min(first + piece, stop)) for first in range(start, stop, piece)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _piece(self, start: int, stop: int) -> np.ndarray:
        if self.height == self.image.height:
            return np.asarray(self._across(self._crop(start, stop)))
        top = int(self._first[start])
        bottom = min(int(self._first[stop - 1]) + self._weights.shape[1], self.image.height)
        band = self._crop(top, bottom)
        if self._down_first:
            return np.asarray(self._across(Image.fromarray(self._down(np.asarray(band), start, stop, top))))
        return self._down(np.asarray(self._across(band)), start, stop, top)

    def _crop(self, top: int, bottom: int) -> Image.Image:
        return self.image.crop((0, top, self.image.width, bottom))

    def _across(self, band: Image.Image) -> Image.Image:
        return band.resize((self.width, band.height), Image.Resampling.BICUBIC)

    def _down(self, band: np.ndarray, start: int, stop: int, top: int) -> np.ndarray:
        """Rows start to stop of the result from a band [n, w, 3] of rows that begins with row `top` of the source."""
        sources = band.reshape(len(band), -1)
        scaled = np.empty((stop - start, sources.shape[1]), dtype=np.uint8)
        total, product = np.empty((2, sources.shape[1]), dtype=np.int32)
        for place, row in zip(scaled, range(start, stop), strict=True):
            total.fill(1 << (_BITS - 1))
            for source, weight in zip(sources[self._first[row] - top :], self._weights[row], strict=False):
                np.multiply(source, weight, out=product, dtype=np.int32)
                total += product
            total >>= _BITS
            np.clip(total, 0, 255, out=place, casting="unsafe")
        return scaled.reshape(stop - start, -1, 3)


def down_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether Pillow scales an image of this size down its columns first.

    The order matters, for what sharp edges overshoot is cut off between the passes. It is Pillow 13's rule, found by
    trial (older versions always go across first); a test compares bands with Pillow over many sizes.
    """
    return height - new_height > 2 * max(0, width - new_width)


def bicubic_weights(size: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's weights for scaling `size` pixels to `target`; scaling down widens the filter.

    Returns:
        First source pixel of every target pixel, int [target]; weights from there on in units of 2^-22, int32
        [target, taps], 0 past the filter and past the end of the source.
    """
    scale = size / target
    stretch = max(scale, 1.0)
    middle = (np.arange(target) + 0.5) * scale
    first = (middle - _REACH * stretch + 0.5).astype(np.int64).clip(min=0)
    last = (middle + _REACH * stretch + 0.5).astype(np.int64).clip(max=size)
    taps = np.arange(int((last - first).max()))
    distance = np.abs((first[:, None] + taps + 0.5 - middle[:, None]) / stretch)
    # Cubic convolution with slope -1/2 at distance 1.
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < _REACH, far, 0.0))
    weights *= taps < (last - first)[:, None]
    weights /= weights.sum(axis=1, keepdims=True)
    return first, np.rint(weights * (1 << _BITS)).astype(np.int32)
