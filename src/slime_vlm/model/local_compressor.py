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
