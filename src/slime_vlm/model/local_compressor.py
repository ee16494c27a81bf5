"""Compression of tiles to a few tokens each, and stitching of tiles into one sequence (paper section 3.3)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from slime_vlm.errors import InputError
from slime_vlm.model.query_attention import QueryAttention
from slime_vlm.model.tiling import split_into_tiles, tile_to_image_order


class LocalCompressor(nn.Module):
    """Resampler_Q of the paper: Q learnable queries attend to the features of every tile.

    Args:
        num_queries: Queries Q of a tile.
        dim: Width C of vision features.
        num_heads: Heads of the query attention.
    """

    def __init__(self, *, num_queries: int, dim: int, num_heads: int) -> None:
        super().__init__()
        self.query_attention = QueryAttention(num_queries=num_queries, dim=dim, num_heads=num_heads)

    def forward(self, features: Tensor) -> Tensor:
        """Compress tiles: [T, N, C] -> [T, Q, C]."""
        return self.query_attention(features)


def stitch_tiles(tokens: Tensor, rows: int, cols: int, order: str = "spatial") -> Tensor:
    """Put the tokens of an image's tiles into one sequence.

    Args:
        tokens: [T, Q, D], tiles row by row, the tokens of a tile row by row.
        rows: Tiles from top to bottom.
        cols: Tiles from left to right.
        order: "spatial" goes row by row over the whole image, "flat" goes tile after tile.

    Returns:
        [L, D] with L = T * Q.

    Raises:
        InputError: The number of tiles or of tokens does not fit the grid.
    """
    num_tiles, num_tokens, dim = tokens.shape
    if num_tiles != rows * cols or math.isqrt(num_tokens) ** 2 != num_tokens:
        raise InputError(
            f"got {num_tiles} tiles of {num_tokens} tokens, expected {rows} x {cols} tiles of a square number of tokens"
        )
    return tokens.reshape(-1, dim) if order == "flat" else tile_to_image_order(tokens, rows, cols)


class TileMap:
    """`stitch_tiles` for tiles that arrive in chunks. Every tile is copied to its final position at once.

    Args:
        rows: Tiles from top to bottom.
        cols: Tiles from left to right.
        order: See `stitch_tiles`.
    """

    def __init__(self, rows: int, cols: int, order: str = "spatial") -> None:
        self.rows, self.cols, self.order = rows, cols, order
        self._tokens: Tensor | None = None
        self._num_tiles = 0

    def add(self, tiles: Tensor) -> None:
        """Add the next tiles, [t, Q, D]."""
        if self._tokens is None:
            self._tokens = tiles.new_empty(self.rows * self.cols * tiles.shape[1], tiles.shape[2])
        if self.order == "flat":
            slots = self._tokens.view(self.rows * self.cols, *tiles.shape[1:])
            slots[self._num_tiles : self._num_tiles + len(tiles)] = tiles
        else:
            slots = split_into_tiles(self._tokens, self.rows, self.cols)
            for index, tile in enumerate(tiles, start=self._num_tiles):
                slots[divmod(index, self.cols)] = tile.view(slots.shape[2:])
        self._num_tiles += len(tiles)

    def tokens(self) -> Tensor:
        """Return all tokens, [L, D].

        Raises:
            InputError: Some tiles are missing.
        """
        if self._tokens is None or self._num_tiles != self.rows * self.cols:
            raise InputError(f"got {self._num_tiles} tiles, expected {self.rows} x {self.cols}")
        return self._tokens
