"""Slicing of an image into tiles, the token counts that follow, and the order of tokens in tiles (paper section 3.1).

This is the only file that knows grids. The image processor cuts by it, the processor counts placeholders by it, the
model checks its features against it, and everything that reorders local tokens calls it. They cannot disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from slime_vlm.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Array = TypeVar("Array", "np.ndarray", "Tensor")
"""Values of local tokens, in NumPy or torch."""

PUBLISHED_MAX_TILES = 7
"""Maximum number of tiles of the published rule."""


@dataclass(frozen=True)
class TileGrid:
    """A grid of square tiles, and the position of the scaled image on it in pixels of the canvas.

    Attributes:
        rows: Tiles from top to bottom.
        cols: Tiles from left to right.
        view_size: Side of the view of a tile.
        scaled_height: Height of the image after scaling to fit the canvas.
        scaled_width: Width of the image after scaling to fit the canvas.
        top: First canvas row that the scaled image covers.
        left: First canvas column that the scaled image covers.
        margin: Pixels of its neighbours that the view of a tile shows at every edge.
    """

    rows: int
    cols: int
    view_size: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int
    margin: int = 0

    @property
    def tile_size(self) -> int:
        """Side of a tile: of its view without margins."""
        return self.view_size - 2 * self.margin

    @property
    def num_tiles(self) -> int:
        """Number of tiles T."""
        return self.rows * self.cols

    @property
    def num_views(self) -> int:
        """Number of views of the image: one global view and the tiles."""
        return 1 + self.num_tiles

    @property
    def canvas_size(self) -> tuple[int, int]:
        """(height, width) of all tiles together."""
        return self.rows * self.tile_size, self.cols * self.tile_size


@dataclass(frozen=True)
class TokenLayout:
    """Numbers of tokens of an image before selection (paper section 3.2, 3.3).

    Attributes:
        num_global_tokens: Tokens of the global view (N), 0 if the model does not use it.
        num_tile_tokens: Tokens of one tile (Q), 0 if the model does not use tiles.
        num_separators: 1 if a separator stands between the two parts, else 0.
    """

    num_global_tokens: int
    num_tile_tokens: int
    num_separators: int

    @property
    def tile_side(self) -> int:
        """Side of the square map of one tile's tokens."""
        return math.isqrt(self.num_tile_tokens)

    def num_local_tokens(self, rows: int, cols: int) -> int:
        """Return the number of local tokens L of an image with rows x cols tiles."""
        return num_local_tokens(rows, cols, self.num_tile_tokens)

    def num_image_tokens(self, rows: int, cols: int) -> int:
        """Return the number of placeholders of an image with rows x cols tiles: global, separator and local tokens."""
        return self.num_global_tokens + self.num_separators + self.num_local_tokens(rows, cols)

    def num_kept_tokens(self, rows: int, cols: int, max_local_tokens: int | None) -> int:
        """Return the number of tokens of an image after selection with a fixed budget. None keeps all local tokens."""
        local = self.num_local_tokens(rows, cols)
        kept = local if max_local_tokens is None else min(local, max_local_tokens)
        return self.num_global_tokens + self.num_separators + kept


def num_local_tokens(rows: int, cols: int, num_tile_tokens: int) -> int:
    """Return the number of local tokens L of a rows x cols grid."""
    return rows * cols * num_tile_tokens


def split_into_tiles(tokens: Array, rows: int, cols: int) -> Array:
    """View values in image order as tiles: [L, ...] -> [rows, cols, side, side, ...], without a copy if contiguous.

    Args:
        tokens: One value per local token, row by row over the whole image.
        rows: Tiles from top to bottom.
        cols: Tiles from left to right.
    """
    side = math.isqrt(len(tokens) // (rows * cols))
    return tokens.reshape(rows, side, cols, side, *tokens.shape[1:]).swapaxes(1, 2)


def image_to_tile_order(tokens: Array, rows: int, cols: int) -> Array:
    """Reorder values from image order to tile order: [L, ...] -> [T, Q, ...]. See `split_into_tiles`."""
    return split_into_tiles(tokens, rows, cols).reshape(rows * cols, -1, *tokens.shape[1:])


def tile_to_image_order(tiles: Array, rows: int, cols: int) -> Array:
    """Reorder values from tile order to image order: [T, Q, ...] -> [L, ...]. The inverse of `image_to_tile_order`.

    Args:
        tiles: One value per local token, tiles row by row, the tokens of a tile row by row.
        rows: Tiles from top to bottom.
        cols: Tiles from left to right.
    """
    side = math.isqrt(tiles.shape[1])
    return tiles.reshape(rows, cols, side, side, *tiles.shape[2:]).swapaxes(1, 2).reshape(-1, *tiles.shape[2:])


def candidate_grids(num_tiles: int, max_tiles: int) -> list[tuple[int, int]]:
    """List the (rows, cols) grids with about `num_tiles` tiles. The first one wins a tie."""
    target = max(2, min(num_tiles, max_tiles - 1))
    products = range(2 if target == 2 else target - 1, target + 2)
    grids = [
        (product // cols, cols)
        for product in products
        if product <= max_tiles
        for cols in range(1, product + 1)
        if product % cols == 0
    ]
    # Deviation: the published rule has no grid below two tiles; max_tiles=1 asks for exactly one.
    return grids or [(1, 1)]


def finer_grids(height: int, width: int, view_size: int, max_tiles: int) -> list[tuple[int, int]]:
    """List for every number of rows the (rows, cols) grid that keeps most pixels and wastes least.

    Deviation: the published rule, made for at most seven tiles, tries three numbers of tiles. Those of a large image
    rarely divide into its shape: 10,000 x 10,000 pixels are 886 tiles' worth, but 885 = 15 x 59, 886 = 2 x 443 and 887
    is prime. Beyond seven tiles any number up to `max_tiles` may be chosen, as long as the image is not enlarged.
    """
    most_rows, most_cols = math.ceil(height / view_size), math.ceil(width / view_size)
    return [
        # As many columns as the image covers at the scale of these rows. More would only be black.
        (rows, min(max_tiles // rows, most_cols, -(-rows * width // height)))
        for rows in range(1, min(most_rows, max_tiles) + 1)
    ]


def choose_grid(height: int, width: int, view_size: int = 336, max_tiles: int = 7, margin: int = 0) -> TileGrid:
    """Choose the grid that keeps most pixels of an image and wastes least of the canvas (paper section 3.1).

    Example: a 480 x 640 image has about three tiles' worth of pixels (ceil(307200 / 112896) = 3); of the grids with
    2, 3 and 4 tiles, 2 x 2 keeps every pixel, so the image is scaled to 504 x 672 and pasted 84 rows down.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        view_size: Side P of a view.
        max_tiles: Maximum number of tiles, 7 in the published rule. A larger one changes nothing for an image of up to
            six tiles' worth of pixels. For larger images see `finer_grids`.
        margin: Pixels of its neighbours that the view of a tile shows at every edge. Deviation: views do not overlap in
            the paper. A small encoder reads the letters at an edge only if it sees them whole.

    Raises:
        InputError: A size is not positive, or the margins leave nothing of a view.
    """
    if height < 1 or width < 1:
        raise InputError(f"an image has {height} x {width} pixels, expected at least 1 x 1")
    if max_tiles < 1:
        raise InputError(f"max_tiles is {max_tiles}, expected at least 1")
    if margin < 0 or view_size <= 2 * margin:
        raise InputError(f"margin is {margin}, expected at least 0 and less than half of the view's {view_size} pixels")
    tile_size = view_size - 2 * margin
    num_tiles = math.ceil(width * height / tile_size**2)
    # If no grid keeps a whole pixel along the short side, the published rule takes the first. Finer grids differ along
    # the long side.
    if min(num_tiles, max_tiles - 1) < PUBLISHED_MAX_TILES:
        candidates, least = candidate_grids(num_tiles, max_tiles), 0
    else:
        candidates, least = finer_grids(height, width, tile_size, max_tiles), 1
    best, best_effective, best_wasted = (1, 1), 0, math.inf
    for rows, cols in candidates:
        canvas_height, canvas_width = rows * tile_size, cols * tile_size
        scale = min(canvas_width / width, canvas_height / height)
        fitted = max(least, int(width * scale)) * max(least, int(height * scale))
        effective = min(fitted, width * height)
        wasted = canvas_width * canvas_height - effective
        if effective > best_effective or (effective == best_effective and wasted < best_wasted):
            best, best_effective, best_wasted = (rows, cols), effective, wasted
    return fit_to_grid(height, width, *best, view_size, margin)


def fit_to_grid(height: int, width: int, rows: int, cols: int, view_size: int = 336, margin: int = 0) -> TileGrid:
    """Scale an image to fit a rows x cols canvas with its aspect kept, and centre it (paper section 3.1)."""
    canvas_height, canvas_width = rows * (view_size - 2 * margin), cols * (view_size - 2 * margin)
    scale_x, scale_y = canvas_width / width, canvas_height / height
    # The tighter side takes its target exactly. The other is rounded up, so that it is never 0.
    if scale_x < scale_y:
        scaled_height, scaled_width = min(math.ceil(height * scale_x), canvas_height), canvas_width
    else:
        scaled_height, scaled_width = canvas_height, min(math.ceil(width * scale_y), canvas_width)
    return TileGrid(
        rows=rows,
        cols=cols,
        view_size=view_size,
        scaled_height=scaled_height,
        scaled_width=scaled_width,
        top=(canvas_height - scaled_height) // 2,
        left=(canvas_width - scaled_width) // 2,
        margin=margin,
    )


def frame_grid(num_frames: int, view_size: int = 336) -> TileGrid:
    """Return the grid of the frames of a video. Every frame fills a tile, two in a row: 8 frames are 4 x 2.

    An odd number of frames makes one column.

    Raises:
        InputError: There is no frame.
    """
    if num_frames < 1:
        raise InputError(f"a video has {num_frames} frames, expected at least 1")
    cols = 2 - num_frames % 2
    rows = num_frames // cols
    return TileGrid(rows, cols, view_size, rows * view_size, cols * view_size, top=0, left=0)
