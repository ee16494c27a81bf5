"""Learnable queries that look for the lines of text in a tile: a local compressor for small models that read pages.

Deviation: in the paper (section 3.3) every query attends to all features of a tile, and learns where to look. Here a
query stands for one cell of the tile and its heads look at that cell alone: 36 heads for every 24 x 24 pixels learn to
read several times sooner (docs/log.md). The tokens are as many as the paper's, 144 a tile.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.errors import ConfigError

LINES = 2
"""Lines of text that a cell can hold."""

_HEADS = 3  # of a place and a line: they start at its upper, middle and lower part
_FEATURE_RANGE = 6.0
_CONTEXT = (3, 11)  # features (down, right) that a block of context looks at


class LineContext(nn.Module):
    """Tell every feature what stands around it, mostly along its line: "0" among digits, "O" among capitals.

    Args:
        dim: Channels of the map.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        down, right = _CONTEXT
        self.around = nn.Conv2d(dim, dim, _CONTEXT, padding=(down // 2, right // 2), groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * dim)
        self.contract = nn.Linear(2 * dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity, so that a reader without context can go on learning with it."""
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add to a map [T, C, h, w] what stands around each of its features."""
        around = self.norm(self.around(x).permute(0, 2, 3, 1))
        return x + self.contract(F.gelu(self.expand(around))).permute(0, 3, 1, 2)


class LineQueries(nn.Module):
    """Queries whose heads each look along one column of features for a line of text.

    A place is one column of a cell, as wide as a feature. For every place and each of its `LINES` lines `_HEADS` heads
    attend to the features of that column, from `margin` rows above the cell to `margin` rows below it. What they find
    there, and at the places to the left and right, becomes one vector.

    Args:
        dim: Channels of the map.
        hidden: Width of a place's vector.
        cell: (rows, columns) of features of a cell. A cell has as many places as columns.
        margin: (rows, columns) of features that the map shows beyond the tile at every edge, at least (1, 1).
        context: Blocks of `LineContext` before the heads.

    Raises:
        ConfigError: The map shows nothing beyond the tile.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, dim: int, hidden: int, cell: tuple[int, int], margin: tuple[int, int], context: int = 0
    ) -> None:
        super().__init__()
        if min(margin) < 1:
            raise ConfigError(f"line queries have a margin of {margin} features, expected at least 1 at every edge")
        self.cell, self.margin = cell, margin
        self.reach = cell[0] + 2 * margin[0]
        # The maps of a convolutional encoder have channels of very different sizes. Set by `fit`, then fixed.
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.context = nn.Sequential(*(LineContext(dim=dim) for _ in range(context)))
        self.score = nn.Conv2d(dim, LINES * _HEADS, 3, padding=1)
        self.row_bias = nn.Parameter(torch.empty(LINES * _HEADS, self.reach))
        self.left = nn.Linear(_HEADS * dim, hidden, bias=False)
        self.middle = nn.Linear(_HEADS * dim, hidden)
        self.right = nn.Linear(_HEADS * dim, hidden, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the heads of the first line around the middle of the cell, those of the second a row below."""
        nn.init.normal_(self.score.weight, std=0.01)
        assert self.score.bias is not None
        nn.init.zeros_(self.score.bias)
        with torch.no_grad():
            self.row_bias.copy_(self.first_rows())

    def first_rows(self) -> Tensor:
        """Return the rows' biases that training starts with, [LINES * heads, reach]."""
        rows = torch.arange(self.reach) - (self.reach - 1) / 2
        middles = torch.tensor([head - 1.0 + line for line in range(LINES) for head in range(_HEADS)])
        return -(rows - middles[:, None]).abs()

    @torch.no_grad()
    def fit(self, feature_map: Tensor) -> None:
        """Set the channels' means and spreads from some maps [T, C, h, w]."""
        std, mean = torch.std_mean(feature_map.float(), dim=(0, 2, 3))
        self.mean.copy_(mean)
        self.std.copy_(std + 0.01)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Read the maps of tiles.

        Args:
            feature_map: [T, C, h, w], margins included.

        Returns:
            [T, rows, places, LINES, hidden]: rows of cells, and the places of all cells of a row from left to right.
        """
        x = ((feature_map - self.mean[:, None, None]) / self.std[:, None, None]).clamp(-_FEATURE_RANGE, _FEATURE_RANGE)
        x = self.context(x)
        scores = self.score(x).unfold(2, self.reach, self.cell[0])  # [T, LINES * heads, rows, w, reach]
        weights = (scores + self.row_bias[:, None, None]).softmax(dim=-1).permute(0, 2, 3, 1, 4)
        columns = x.permute(0, 2, 3, 1).unfold(1, self.reach, self.cell[0])  # [T, rows, w, C, reach]
        # Heads of a line side by side: [T, rows, w, LINES, heads * C].
        found = (weights @ columns.transpose(-1, -2)).unflatten(-2, (LINES, _HEADS)).flatten(-2)
        first, last = self.margin[1], found.shape[2] - self.margin[1]
        # Cut after the layers: of a cut, torch copies weights that need no gradient once for every place.
        return F.gelu(
            self.left(found)[:, :, first - 1 : last - 1]
            + self.middle(found)[:, :, first:last]
            + self.right(found)[:, :, first + 1 : last + 1]
        )
