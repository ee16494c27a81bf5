"""Position of every local token on the stitched page.

Deviation: not in the paper. An option for small language models, which do not infer the position of a token on the page
from its position in the sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slime_vlm.model.local_compressor import stitch_tiles
from slime_vlm.model.query_attention import sincos_positions


class PagePositions(nn.Module):
    """A fixed sine-cosine code of (row, column) on the stitched map, then a learned linear layer.

    Args:
        dim: Width D of the language model.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        rows: int,
        cols: int,
        tile_side: int,
        order: str = "spatial",
        kept: Tensor | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Embed the positions of all local tokens of a grid of tiles, in the order of merging.

        Args:
            rows: Tiles from top to bottom.
            cols: Tiles from left to right.
            tile_side: Local tokens along the side of a tile.
            order: See `stitch_tiles`.
            kept: [L] bool: embed the positions of these tokens only.
            device: Device of the positions. None takes that of the weights, which offloaded weights do not have.

        Returns:
            [L, D].
        """
        weight = self.linear.weight
        device = device or weight.device
        tile_rows, tile_cols, local_rows, local_cols = torch.meshgrid(
            *(torch.arange(n, device=device) for n in (rows, cols, tile_side, tile_side)), indexing="ij"
        )
        positions = torch.stack([tile_rows * tile_side + local_rows, tile_cols * tile_side + local_cols], dim=-1)
        positions = stitch_tiles(positions.reshape(rows * cols, tile_side**2, 2), rows, cols, order)
        positions = positions if kept is None else positions[kept.to(device)]
        return self.linear(sincos_positions(positions[:, 0], positions[:, 1], weight.shape[1]).to(weight.dtype))
