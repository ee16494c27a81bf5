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

    Its cost grows with the square of the number of cells that show something.

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
        self.around = nn.Conv2d(
            word_dim, word_dim, _AROUND, padding=(_AROUND[0] // 2, _AROUND[1] // 2), groups=word_dim
        )
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
        with torch.no_grad():
            for bias, first in zip((self.row_bias, self.column_bias), self.first_biases(), strict=True):
                bias.copy_(first)

    def first_biases(self) -> tuple[Tensor, Tensor]:
        """Return the biases of both directions that training starts with, each [heads, across, along]."""
        distance = torch.arange(-FARTHEST, FARTHEST + 1).float()
        # Offsets are those of the cell looked at from the one that looks: negative is to the left or above.
        along = -0.3 * (distance > 0) - 0.01 * distance.abs()
        rows = along - 0.3 * torch.arange(-ROW_REACH, ROW_REACH + 1).abs()[:, None]
        columns = along - 0.1 * torch.arange(-COLUMN_REACH, COLUMN_REACH + 1).abs()[:, None]
        return rows.expand(self.heads, -1, -1), columns.expand(self.heads, -1, -1)

    def forward(self, hidden: Tensor, words: Tensor, shown: Tensor) -> Tensor:
        """Link the cells of pages.

        Args:
            hidden: [B, R, C, D] features of the cells.
            words: [B, R, C, W] sum of the words of every cell.
            shown: [B, R, C] True on cells that show something. Others are not looked at.

        Returns:
            [B, R, C, W], 0 for cells that show nothing.
        """
        hidden = self.entry(self.norm(hidden)) * shown[..., None]
        around = self.around(hidden.movedim(-1, 1)).movedim(1, -1)
        hidden = hidden + self.mix(F.gelu(around))
        # Most cells of a page are empty: what follows is for the others, [B, N].
        page, row, col = shown.nonzero(as_tuple=True)
        counts = torch.bincount(page, minlength=len(shown))
        place = torch.arange(len(page), device=page.device) - (counts.cumsum(0) - counts)[page]
        size = (len(shown), int(counts.max()) if len(page) else 0)

        def gathered(values: Tensor) -> Tensor:
            return values.new_zeros(*size, *values.shape[1:]).index_put((page, place), values)

        at, rows, cols = gathered(shown[shown]), gathered(row), gathered(col)
        hidden, near_words = gathered(hidden[shown]), gathered(words[shown])
        # [B, N, direction, query or key, head, width]
        projected = self.projection(hidden).unflatten(-1, (2, 2, self.heads, self.head_dim))
        # In blocks of the cells that look, so that a full page of thousands does not fill the memory.
        block = max(1, _MOST_SCORES // max(1, at.numel() * 2 * self.heads))
        found = torch.cat(
            [
                self._look(projected, near_words, at, rows, cols, begin, begin + block)
                for begin in range(0, max(1, size[1]), block)
            ],
            dim=1,
        )
        gates = F.softplus(self.gates(hidden))
        linked = near_words * gates[..., :1] + (found * gates[..., 1:, None]).sum(dim=-2)
        return words.new_zeros(words.shape).index_put((page, row, col), linked[page, place])

    def _look(
        self, projected: Tensor, words: Tensor, at: Tensor, rows: Tensor, cols: Tensor, begin: int, end: int
    ) -> Tensor:
        """Let the cells from `begin` to `end` look at all.

        Args:
            projected: [B, N, 2, 2, heads, head_dim] along rows and columns: queries and keys.
            words: [B, N, W].
            at: bool [B, N], False in padding.
            rows: int64 [B, N] row of every cell.
            cols: int64 [B, N] column of every cell.
            begin: First cell that looks.
            end: The cell after the last.

        Returns:
            [B, end - begin, 2 * heads, W] words found by every head.
        """
        queries, keys = projected[:, begin:end, :, 0], projected[:, :, :, 1]
        scores = torch.einsum("bndhx,bmdhx->bdhnm", queries * self.head_dim**-0.5, keys)
        down = rows[:, None] - rows[:, begin:end, None]
        right = cols[:, None] - cols[:, begin:end, None]
        near = []
        for beside, along, bias, reach in (
            (down, right, self.row_bias, ROW_REACH),
            (right, down, self.column_bias, COLUMN_REACH),
        ):
            seen = (beside.abs() <= reach) & at[:, None]
            line, offset = beside.clamp(-reach, reach) + reach, along.clamp(-FARTHEST, FARTHEST) + FARTHEST
            # The table is small and learns faster at ten times its size.
            table = 10.0 * bias[:, line, offset].transpose(0, 1)
            near.append(table.masked_fill(~seen[:, None], torch.finfo(table.dtype).min))
        weights = (scores + torch.stack(near, dim=1)).flatten(1, 2).softmax(dim=-1)
        return torch.einsum("bhnm,bmw->bnhw", weights, words)
