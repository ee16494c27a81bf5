"""Compression of tiles to few tokens and their stitching into one map (paper section 3.3)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from slime_vlm.errors import InputError
from slime_vlm.model.query_attention import QueryAttention


class LocalCompressor(nn.Module):
    """Resampler_Q of the paper: the features of every tile read by Q learnable queries.

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
        tokens: [T, Q, D], tiles row by row, tokens of a tile in raster order.
        rows: Tiles from top to bottom.
        cols: Tiles from left to right.
        order: "spatial" reads the whole image row by row, "flat" tile after tile.

    Returns:
        [L, D] with L = T * Q.

    Raises:
        InputError: The number of tiles or of tokens does not fit the grid.
    """
    num_tiles, num_tokens, dim = tokens.shape
    side = math.isqrt(num_tokens)
    if num_tiles != rows * cols or side * side != num_tokens:
        raise InputError(
            f"got {num_tiles} tiles of {num_tokens} tokens, expected {rows} x {cols} tiles of a square number of tokens"
        )
    if order == "flat":
        return tokens.reshape(-1, dim)
    return tokens.reshape(rows, cols, side, side, dim).transpose(1, 2).reshape(-1, dim)


class TileMap:
    """`stitch_tiles` for tiles that come one after the other: each is put into its place, and nothing is kept twice.

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
        """Put the next tiles [t, Q, D] into their places."""
        num_tokens, dim = tiles.shape[1:]
        side = math.isqrt(num_tokens)
        if self._tokens is None:
            self._tokens = tiles.new_empty(self.rows * self.cols * num_tokens, dim)
        if self.order == "flat":
            places = self._tokens.view(self.rows * self.cols, num_tokens, dim)
            places[self._num_tiles : self._num_tiles + len(tiles)] = tiles
        else:
            places = self._tokens.view(self.rows, side, self.cols, side, dim)
            for number, tile in enumerate(tiles, start=self._num_tiles):
                places[number // self.cols, :, number % self.cols] = tile.view(side, side, dim)
        self._num_tiles += len(tiles)

    def tokens(self) -> Tensor:
        """All tokens, [L, D].

        Raises:
            InputError: Some tiles are missing.
        """
        if self._tokens is None or self._num_tiles != self.rows * self.cols:
            raise InputError(f"got {self._num_tiles} tiles, expected {self.rows} x {self.cols}")
        return self._tokens
