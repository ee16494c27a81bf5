"""Page sizes: any size and aspect ratio for which the image processor chooses a wanted number of tiles."""

from __future__ import annotations

import random
from functools import lru_cache

from slime_vlm.errors import ConfigError
from slime_vlm.model.tiling import TileGrid, choose_grid
from slime_vlm.pages.settings import PageSettings

_TRIES = 300
_SMALLEST_SIDE = 48  # pages narrower than a few characters hold nothing


@lru_cache(maxsize=64)
def _grids(tiles: tuple[int, int], view_size: int, max_tiles: int) -> tuple[list[tuple[int, int]], list[float]]:
    """Return the grids that the slicing rule can choose, with weights that favour page-like aspect ratios."""
    grids, weights = [], []
    for rows in range(1, tiles[1] + 1):
        for cols in range(1, tiles[1] // rows + 1):
            if rows * cols < tiles[0]:
                continue
            found = choose_grid(rows * view_size, cols * view_size, view_size, max_tiles)
            if (found.rows, found.cols) != (rows, cols):
                continue
            ratio = max(rows, cols) / min(rows, cols)
            grids.append((rows, cols))
            weights.append(1.0 if ratio <= 2 else 0.5 if ratio <= 3 else 0.12 if ratio <= 4 else 0.03)
    return grids, weights


def choose_page_size(rng: random.Random, settings: PageSettings) -> tuple[int, int, TileGrid]:
    """Draw a page size whose grid has `settings.tiles` tiles and about `settings.page_scale` pixels per grid pixel.

    Returns:
        Height and width of the page in pixels, and its grid.

    Raises:
        ConfigError: No page has that many tiles under the slicing rule.
    """
    view_size, max_tiles = settings.view_size, settings.max_tiles
    grids, weights = _grids(settings.tiles, view_size, max_tiles)
    low, high = settings.page_scale
    for attempt in range(_TRIES if grids else 0):
        rows, cols = rng.choices(grids, weights)[0]
        scale = rng.uniform(low, high)
        # One side fills its tiles and the other only a part of them, as in real pages. The rest of the tiles is black.
        short = rng.uniform(0.72, 1.0) if rng.random() < 0.7 else rng.uniform(0.9, 1.0)
        fill_height, fill_width = (1.0, short) if rng.random() < 0.5 else (short, 1.0)
        height, width = round(rows * view_size * scale * fill_height), round(cols * view_size * scale * fill_width)
        if min(height, width) < _SMALLEST_SIDE or max(height, width) > settings.max_side:
            continue
        grid = choose_grid(height, width, view_size, max_tiles)
        if not settings.tiles[0] <= grid.num_tiles <= settings.tiles[1]:
            continue
        true_scale = width / grid.scaled_width
        # Small grids are impossible at large scales (more pixels make more tiles). Drop the wanted scale half way.
        if attempt > _TRIES // 2 or 0.93 * low <= true_scale <= 1.07 * high:
            return height, width, grid
    raise ConfigError(
        f"pages: no page of {settings.tiles[0]} to {settings.tiles[1]} tiles with view_size {view_size} and max_tiles "
        f"{max_tiles} at page_scale {low} to {high}: change tiles or page_scale"
    )
