"""The linker tells every cell of a page which words stand beside and above it.

Deviation: not in the paper. A value does not name its key, so a selector that compares tokens with the question drops
it. The linker's attention decides where to look; what it passes on are the word vectors of the cells found, unchanged
but for their weights. Words that training has never seen go through like any other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROW_REACH = 1
"""Rows above and below that the heads along rows look at: words of one line may fall into neighbouring rows."""

COLUMN_REACH = 2
"""Columns to the left and right that the heads along columns look at: a heading need not stand right above a value."""

_AROUND = (3, 7)
_MOST_SCORES = 2**24

FARTHEST = 20
"""Distances beyond this many cells are alike."""


class Linker(nn.Module):
    """Attention along the rows and along the columns of a raster of cells.

    Its cost grows with R * C * (R + C), not with the square of the number of cells.

    Args:
        dim: Width D of the cells' features.
        word_dim: Width W of word vectors, and of the linker's own features.
        heads: Heads along rows, and as many along columns.
        head_dim: Width of a head.
    """

    def __init__(self, *, dim: int, word_dim: int, heads: int = 2, head_dim: int = 32) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.norm = nn.RMSNorm(dim)
        self.entry = nn.Linear(dim, word_dim, bias=False)
        # What stands around a cell tells keys from values: a gap, a mark, capitals.
        self.around = nn.Conv2d(word_dim, word_dim, _AROUND, padding=tuple(n // 2 for n in _AROUND), groups=word_dim)
        self.mix = nn.Linear(word_dim, word_dim)
        self.projection = nn.Linear(word_dim, 4 * heads * head_dim, bias=False)
        nn.init.normal_(self.projection.weight, std=0.5 * word_dim**-0.5)
        # Weights of the cell's own words and of what each head found.
        self.gates = nn.Linear(word_dim, 1 + 2 * heads)
        nn.init.constant_(self.gates.bias, 0.5)
        self.row_bias = nn.Parameter(torch.zeros(heads, 2 * ROW_REACH + 1, 2 * FARTHEST + 1))
        self.column_bias = nn.Parameter(torch.zeros(heads, 2 * COLUMN_REACH + 1, 2 * FARTHEST + 1))
        self.start_nearby()

    def start_nearby(self) -> None:
        """Start with heads along rows looking to the left, and heads along columns looking up."""
        distance = torch.arange(-FARTHEST, FARTHEST + 1).float()
        # Offsets are those of the cell looked at from the one that looks: negative is to the left or above.
        along = -0.3 * (distance > 0) - 0.01 * distance.abs()
        with torch.no_grad():
            self.row_bias.copy_(along - 0.3 * torch.arange(-ROW_REACH, ROW_REACH + 1).abs()[:, None])
            self.column_bias.copy_(along - 0.1 * torch.arange(-COLUMN_REACH, COLUMN_REACH + 1).abs()[:, None])

    def forward(self, hidden: Tensor, words: Tensor, shown: Tensor) -> Tensor:
        """Link the cells of pages.

        Args:
            hidden: [B, R, C, D] features of the cells.
            words: [B, R, C, W] sum of the words of every cell.
            shown: [B, R, C] True on cells that show something. Others are not looked at.

        Returns:
            [B, R, C, W].
        """
        hidden = self.entry(self.norm(hidden)) * shown[..., None]
        around = self.around(hidden.movedim(-1, 1)).movedim(1, -1)
        hidden = hidden + self.mix(F.gelu(around))
        # [B, R, C, direction, query or key, head, width]
        projected = self.projection(hidden).unflatten(-1, (2, 2, self.heads, self.head_dim))
        along_rows, along_columns = projected.unbind(3)
        by_row = self._look(along_rows, words, shown, self.row_bias, ROW_REACH)
        turned = [values.transpose(1, 2) for values in (along_columns, words, shown)]
        by_column = self._look(*turned, self.column_bias, COLUMN_REACH).transpose(1, 2)
        gates = F.softplus(self.gates(hidden))
        found = torch.cat([by_row, by_column], dim=-2)
        return words * gates[..., :1] + (found * gates[..., 1:, None]).sum(dim=-2)

    def _look(self, projected: Tensor, words: Tensor, shown: Tensor, bias: Tensor, reach: int) -> Tensor:
        """Attend along lines of cells, and along the lines beside them.

        Args:
            projected: [B, L, N, 2, heads, head_dim] queries and keys of L lines of N cells.
            words: [B, L, N, W].
            shown: [B, L, N].
            bias: [heads, 2 * reach + 1, 2 * FARTHEST + 1], see `start_nearby`.
            reach: Lines to each side.

        Returns:
            [B, L, N, heads, W] words found by every head.
        """
        count = words.shape[2]
        queries, keys = projected.unbind(3)
        cells = torch.arange(count, device=words.device)
        offsets = (cells - cells[:, None]).clamp(-FARTHEST, FARTHEST) + FARTHEST
        # The table is small and learns faster at ten times its size.
        near = 10.0 * bias[:, :, offsets].transpose(1, 2)
        found = []
        # In blocks of lines, so that a page of hundreds of rows does not fill the memory.
        block = max(1, _MOST_SCORES // near.numel())
        parts = (queries, _beside(keys, reach), _beside(words, reach), _beside(shown, reach))
        for query, key, word, seen in zip(*(part.split(block, dim=1) for part in parts), strict=True):
            scores = torch.einsum("blnhd,blkmhd->blhnkm", query * self.head_dim**-0.5, key) + near
            scores = scores.masked_fill(~seen[:, :, None, None], torch.finfo(scores.dtype).min)
            found.append(torch.einsum("blhnx,blxw->blnhw", scores.flatten(-2).softmax(dim=-1), word.flatten(2, 3)))
        return torch.cat(found, dim=1)


def _beside(lines: Tensor, reach: int) -> Tensor:
    """Stack every line with those beside it, nothing beyond the edges: [B, L, ...] -> [B, L, 2 * reach + 1, ...]."""
    padding = [0, 0] * (lines.dim() - 2) + [reach, reach]
    return F.pad(lines, padding).unfold(1, 2 * reach + 1, 1).movedim(-1, 2)
