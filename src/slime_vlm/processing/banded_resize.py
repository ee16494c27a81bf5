"""Rows of a scaled image, a band at a time: the pixels of `Image.resize` bit for bit, without the whole scaled image.

Pillow scales in two passes, across and down, and rounds to 8 bits after each. The pass across treats every row by
itself, so Pillow scales bands there. For a part of the pass down, Pillow only takes a box in single precision, which
changes some pixels by one grey level. That pass is therefore written out here, with Pillow's integer weights.
"""

from __future__ import annotations

import numpy as np
import PIL
from PIL import Image

from slime_vlm.media import TiledImage

# Fractional bits of Pillow's weights for 8-bit channels.
_BITS = 22
# Rows of the source that are in memory at a time.
_SOURCE_ROWS = 1024
# Reach of the bicubic filter to either side, in pixels of the coarser of the two images.
_REACH = 2.0
_MAY_SCALE_DOWN_FIRST = int(PIL.__version__.split(".")[0]) >= 13


class RowBands:
    """An image scaled by the bicubic filter. It computes any range of rows.

    Args:
        image: The RGB image, or an object with its size and `crop`.
        height: Height after scaling.
        width: Width after scaling.
    """

    def __init__(self, image: Image.Image | TiledImage, height: int, width: int) -> None:
        self.image, self.height, self.width = image, height, width
        self._first, self._weights = bicubic_weights(image.height, height)
        self._down_first = down_first(image.height, image.width, height, width)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Compute rows start to stop (exclusive) of the scaled image, uint8 [stop - start, width, 3]."""
        # Rows are independent, so a band that needs too many rows of the source is computed in pieces.
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
        """Compute rows start to stop of the result from a band [n, w, 3] that starts at row `top` of the source."""
        sources = band.reshape(len(band), -1)
        scaled = np.empty((stop - start, sources.shape[1]), dtype=np.uint8)
        total, product = np.empty((2, sources.shape[1]), dtype=np.int32)
        for out, row in zip(scaled, range(start, stop), strict=True):
            total.fill(1 << (_BITS - 1))
            for source, weight in zip(sources[self._first[row] - top :], self._weights[row], strict=False):
                np.multiply(source, weight, out=product, dtype=np.int32)
                total += product
            total >>= _BITS
            np.clip(total, 0, 255, out=out, casting="unsafe")
        return scaled.reshape(stop - start, -1, 3)


def down_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether Pillow scales an image of this size down its columns first.

    The order matters, since overshoot at sharp edges is clipped between the passes. This is the rule of Pillow 13,
    found by trial. Older versions always scale across first. A test compares bands with Pillow over many sizes.
    """
    return _MAY_SCALE_DOWN_FIRST and height - new_height > 2 * max(0, width - new_width)


def bicubic_weights(size: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute Pillow's weights for scaling `size` pixels to `target`. Scaling down widens the filter.

    Returns:
        First source pixel of every target pixel, int [target], and the weights from there on in units of 2^-22, int32
        [target, taps]. They are 0 beyond the filter and beyond the end of the source.
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
