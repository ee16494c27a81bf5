"""Scale an image and cut it into its views: the global view and the tiles (paper section 3.1).

Nothing here imports torch, unless it is asked to scale: processes that only decode images start fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from slime_vlm.errors import ConfigError
from slime_vlm.media import TiledImage
from slime_vlm.model.tiling import TileGrid
from slime_vlm.processing.banded_resize import RowBands, down_first

WHOLE_PIXELS = 4_000_000
"""An image that is larger than this after scaling is scaled in bands. Smaller ones are faster in a single step."""

_TORCH_MODES: dict[int, str] = {Image.Resampling.BICUBIC: "bicubic", Image.Resampling.BILINEAR: "bilinear"}

_Scale = Callable[[int, int], np.ndarray]


def cut_views(
    image: Image.Image | TiledImage,
    grid: TileGrid,
    resample: int,
    views: str = "both",
    resize_backend: str = "pillow",
) -> Iterator[np.ndarray]:
    """Cut an RGB image into its views, one after the other.

    If the scaled image would be large, only one row of tiles is in memory at a time.

    Args:
        image: The image. One that stays in its file is scaled in bands, by Pillow's filter whatever the backend.
        grid: Its tiles. Their views show a margin of the neighbours if the grid has one, black beyond the canvas.
        resample: Filter for scaling.
        views: "both", or only the "global" view or the "local" tiles.
        resize_backend: See `SlimeImageProcessorKwargs`.

    Yields:
        [P, P, 3] uint8: the whole image squashed to a square, then the tiles row by row.

    Raises:
        ConfigError: The backend is unknown, or does not have the filter.
    """
    side, tile = grid.view_size, grid.tile_size
    scale = scaling(image, resample, resize_backend)
    if views != "local":
        yield scale(side, side)
    if views == "global":
        return
    rows_of = _rows_of_scaled(image, grid, resample, scale)
    for tile_row in range(grid.rows):
        band = np.zeros((side, grid.cols * tile + 2 * grid.margin, 3), dtype=np.uint8)
        top, left = tile_row * tile - grid.margin, grid.left + grid.margin
        start, stop = max(top, grid.top), min(top + side, grid.top + grid.scaled_height)
        if start < stop:
            columns = slice(left, left + grid.scaled_width)
            band[start - top : stop - top, columns] = rows_of(start - grid.top, stop - grid.top)
        for col in range(grid.cols):
            yield band[:, col * tile : col * tile + side]


def scaling(image: Image.Image | TiledImage, resample: int, resize_backend: str) -> _Scale:
    """Return a function that scales the image to a height and width, uint8 [height, width, 3]."""
    if resize_backend not in ("pillow", "torch"):
        raise ConfigError(f"resize_backend is '{resize_backend}', expected 'pillow' or 'torch'")
    if resample not in list(Image.Resampling):
        filters = ", ".join(f"{one.value} ({one.name.lower()})" for one in Image.Resampling)
        raise ConfigError(f"resample is {resample!r:.40}, expected one of Pillow's filters: {filters}")
    if isinstance(image, TiledImage):
        if resample != Image.Resampling.BICUBIC:
            raise ConfigError(f"resample is {resample}, expected bicubic for an image that stays in its file")
        return lambda height, width: RowBands(image, height, width).rows(0, height)

    def by_pillow(height: int, width: int) -> np.ndarray:
        return np.asarray(image.resize((width, height), resample))

    if resize_backend == "pillow":
        return by_pillow
    if resample not in _TORCH_MODES:
        raise ConfigError(
            f"resize_backend 'torch' has no filter {resample}, expected bicubic or bilinear; use 'pillow'"
        )
    sources: list[Any] = []

    def by_torch(height: int, width: int) -> np.ndarray:
        import torch

        # Torch scales across first and clips overshoot at sharp edges between the passes: up to seven grey levels.
        if down_first(image.height, image.width, height, width):
            return by_pillow(height, width)
        if not sources:
            # Torch's fast path needs channels last.
            sources.append(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
        # Deviation: integer weights of 16 bits, Pillow has 22.
        scaled = torch.nn.functional.interpolate(
            sources[0], (height, width), mode=_TORCH_MODES[resample], antialias=True
        )
        return scaled[0].permute(1, 2, 0).numpy()

    return by_torch


def _rows_of_scaled(image: Image.Image | TiledImage, grid: TileGrid, resample: int, scale: _Scale) -> _Scale:
    """Return a function for rows start to stop of the image scaled to its grid, uint8 [stop - start, width, 3]."""
    large = grid.scaled_height * grid.scaled_width > WHOLE_PIXELS
    if isinstance(image, TiledImage) or (large and resample == Image.Resampling.BICUBIC):
        return RowBands(image, grid.scaled_height, grid.scaled_width).rows
    scaled = scale(grid.scaled_height, grid.scaled_width)
    return lambda start, stop: scaled[start:stop]
