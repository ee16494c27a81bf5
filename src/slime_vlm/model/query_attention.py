"""One cross-attention layer with learnable queries: the resampler of the paper (section 3.2).

The global attention adapter has one query per vision token, the local compressor a few queries per tile.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.errors import ConfigError, InputError


def sincos_positions(rows: Tensor, cols: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Encode positions (row, column) by sines and cosines. The first half of the channels encodes the column.

    Args:
        rows: [P] row of every position.
        cols: [P] column of every position.
        dim: Width of the code, a multiple of 4.
        temperature: Wavelengths grow from 2 pi to 2 pi times this number.

    Returns:
        [P, dim] float32.

    Raises:
        ConfigError: The width is not a multiple of 4.
    """
    if dim % 4:
        raise ConfigError(f"the width of a 2-D position code is {dim}, expected a multiple of 4")
    # Double precision costs nothing here and keeps distant positions exact.
    steps = torch.arange(dim // 4, dtype=torch.float64, device=rows.device)
    frequencies = temperature ** (-steps / (dim // 4))
    angles_x = cols.double()[:, None] * frequencies
    angles_y = rows.double()[:, None] * frequencies
    return torch.cat([angles_x.sin(), angles_x.cos(), angles_y.sin(), angles_y.cos()], dim=-1).float()


def initial_position_table(num_queries: int, dim: int) -> Tensor:
    """Return the sine-cosine table of a square grid of queries in raster order, [Q, C] float32."""
    index = torch.arange(num_queries)
    side = math.isqrt(num_queries)
    return sincos_positions(index // side, index % side, dim)


class QueryAttention(nn.Module):
    """Learnable queries that attend to a map of features by one multi-head cross-attention.

    q = LN_q(query) + pos, k = LN_kv(x) + pos', v = LN_kv(x), out = LN_post(Attention(q, k, v)); pos' is the queries'
    position table resized to the input's grid. No residual connection.

    Args:
        num_queries: Number of queries Q, a square number, since they form a grid.
        dim: Width C.
        num_heads: Attention heads.

    Raises:
        ConfigError: The number of queries is not a square, or the width does not divide into the heads.
    """

    position_table: Tensor

    def __init__(self, *, num_queries: int, dim: int, num_heads: int) -> None:
        super().__init__()
        if math.isqrt(num_queries) ** 2 != num_queries:
            raise ConfigError(f"query attention has {num_queries} queries, expected a square number: they form a grid")
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"width {dim} does not divide into {num_heads} heads, change query_attention_head_dim")
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.empty(num_queries, dim))
        # Stored with the weights and never trained. Published checkpoints hold a table that is rounded to 16 bits.
        self.register_buffer("position_table", torch.empty(num_queries, dim))
        self.norm_query = nn.LayerNorm(dim, eps=1e-6)
        self.norm_input = nn.LayerNorm(dim, eps=1e-6)
        self.norm_output = nn.LayerNorm(dim, eps=1e-6)
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the queries and rebuild the position table."""
        with torch.no_grad():
            nn.init.normal_(self.query, std=0.02)
            self.position_table.copy_(initial_position_table(*self.query.shape))

    def input_positions(self, num_inputs: int) -> Tensor:
        """Resize the position table to an input grid of `num_inputs` positions, [num_inputs, C].

        Raises:
            InputError: The inputs do not form a square grid.
        """
        num_queries, dim = self.position_table.shape
        side, query_side = math.isqrt(num_inputs), math.isqrt(num_queries)
        if side * side != num_inputs:
            raise InputError(f"a view has {num_inputs} features, expected a square number")
        if side == query_side:
            return self.position_table
        table = self.position_table.float().reshape(1, query_side, query_side, dim).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(side, side), mode="bicubic", align_corners=False)
        return table.permute(0, 2, 3, 1).reshape(num_inputs, dim).to(self.position_table.dtype)

    def forward(self, features: Tensor) -> Tensor:
        """Attend to features with the queries: [T, N, C] -> [T, Q, C]."""
        num_views, num_inputs, dim = features.shape
        inputs = self.norm_input(features)
        queries = self.q_proj(self.norm_query(self.query) + self.position_table)
        keys = self.k_proj(inputs + self.input_positions(num_inputs))
        values = self.v_proj(inputs)
        queries = queries.unflatten(-1, (self.num_heads, -1)).transpose(0, 1).expand(num_views, -1, -1, -1)
        keys = keys.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        values = values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        return self.norm_output(self.out_proj(attended.transpose(1, 2).reshape(num_views, -1, dim)))
