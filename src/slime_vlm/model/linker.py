"""The linker tells every cell of a page which words stand beside and above it.

Deviation: not in the paper. A value does not name its key, so a selector that compares tokens with the question drops
it. The linker's attention decides where to look; what it passes on are the word vectors of the cells found, unchanged
but for their weights. Words that training has never seen go through like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.model.run_relations import APART, NUM_BESIDE, NUM_STACKED, number_runs, relate_runs

ROW_REACH = 1
"""Rows above and below that the heads along rows look at: words of one line may fall into neighbouring rows."""

COLUMN_REACH = 2
"""Columns to the left and right that the heads along columns look at, beside runs that stand above each other."""

_AROUND = (3, 7)
_MOST_SCORES = 2**24

FARTHEST = 20
"""Distances beyond this many cells are alike."""

_TABLE_SCALE = 10.0
"""A table of biases is small and learns faster at ten times its size."""


@dataclass(frozen=True)
class ShownCells:
    """The cells of pages that show something, in reading order, N of the fullest page.

    Attributes:
        at: bool [B, N], False in padding.
        rows: int64 [B, N].
        cols: int64 [B, N].
        beside: int64 [B, M, M] relations of the runs of every page, see `RunRelations`.
        stacked: int64 [B, M, M].
        run: int64 [B, N] run of every cell.
        image: int64 [B, N] image of every cell; those of different images do not see each other. None for one image.
    """

    at: Tensor
    rows: Tensor
    cols: Tensor
    beside: Tensor
    stacked: Tensor
    run: Tensor
    image: Tensor | None = None


class MarkedCells:
    """Some cells of pages, brought to the front: most cells of a page are empty, and are not worked on.

    Args:
        marked: bool [B, ...] which ones, N of the page with most, one at least.
    """

    def __init__(self, marked: Tensor) -> None:
        self.marked = marked
        self.index = marked.nonzero(as_tuple=True)
        counts = marked.flatten(1).sum(dim=1)
        self.page = self.index[0]
        self.place = torch.arange(len(self.page), device=marked.device) - (counts.cumsum(0) - counts)[self.page]
        self.size = (len(marked), max(1, int(counts.max()) if len(counts) else 0))

    def packed(self, values: Tensor) -> Tensor:
        """Put one value for every marked cell [M, ...] into rows [B, N, ...], 0 in padding."""
        return values.new_zeros(*self.size, *values.shape[1:]).index_put((self.page, self.place), values)

    def gathered(self, values: Tensor) -> Tensor:
        """Return the marked ones of values of all cells: [B, ..., X] -> [B, N, X]."""
        return self.packed(values[self.marked])

    def spread(self, values: Tensor, other: float = 0.0) -> Tensor:
        """Put values [B, N, X] back to where they came from: [B, ..., X], `other` elsewhere."""
        whole = values.new_full((*self.marked.shape, *values.shape[2:]), other)
        return whole.index_put(self.index, values[self.page, self.place])


class PageAttention(nn.Module):
    """Attention along the rows and along the columns of a page: it finds where to look, by content and by place.

    Args:
        dim: Width of the cells' features.
        heads: Heads along rows, and as many along columns.
        head_dim: Width of a head.
    """

    def __init__(self, *, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.projection = nn.Linear(dim, 4 * heads * head_dim, bias=False)
        nn.init.normal_(self.projection.weight, std=0.5 * dim**-0.5)
        self.row_bias = nn.Parameter(torch.zeros(heads, 2 * ROW_REACH + 1, 2 * FARTHEST + 1))
        self.column_bias = nn.Parameter(torch.zeros(heads, 2 * COLUMN_REACH + 1, 2 * FARTHEST + 1))
        self.beside_bias = nn.Parameter(torch.zeros(heads, NUM_BESIDE))
        self.stacked_bias = nn.Parameter(torch.zeros(heads, NUM_STACKED))
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

    def forward(self, hidden: Tensor, values: Tensor, cells: ShownCells) -> Tensor:
        """Let every cell look at the others.

        Args:
            hidden: [B, Q, N, dim] features of the cells, for each of Q questions about a page.
            values: [B, Q, N, V] what is found.
            cells: Where the cells stand.

        Returns:
            [B, Q, N, 2 * heads, V].
        """
        # [B, Q, N, direction, query or key, head, width]
        projected = self.projection(hidden).unflatten(-1, (2, 2, self.heads, self.head_dim))
        # In blocks of the cells that look, so that a full page of thousands does not fill the memory.
        block = max(1, _MOST_SCORES // max(1, cells.at.numel() * hidden.shape[1] * 2 * self.heads))
        # Heads before cells, so that both products work on memory in order: training takes a fifth less time.
        queries = projected[:, :, :, :, 0].permute(0, 1, 3, 4, 2, 5).contiguous() * self.head_dim**-0.5
        keys = projected[:, :, :, :, 1].permute(0, 1, 3, 4, 5, 2).contiguous()
        parts = [
            self._look(queries, keys, values, cells, begin, begin + block)
            for begin in range(0, max(1, hidden.shape[2]), block)
        ]
        return torch.cat(parts, dim=2)

    def _look(self, queries: Tensor, keys: Tensor, values: Tensor, cells: ShownCells, begin: int, end: int) -> Tensor:
        """Let the cells from `begin` to `end` look at all."""
        scores = queries[..., begin:end, :] @ keys + self._places(cells, begin, end)[:, None]
        weights = scores.flatten(2, 3).softmax(dim=-1)
        found = weights.flatten(2, 3) @ values
        return found.unflatten(2, (2 * self.heads, -1)).transpose(2, 3)

    def _places(self, cells: ShownCells, begin: int, end: int) -> Tensor:
        """Return what places add to scores, [B, 2, heads, n, N], very little for cells that do not see each other."""
        down = cells.rows[:, None] - cells.rows[:, begin:end, None]
        right = cells.cols[:, None] - cells.cols[:, begin:end, None]
        shown = cells.at[:, None]
        if cells.image is not None:
            shown = shown & (cells.image[:, begin:end, None] == cells.image[:, None])
        page = torch.arange(len(down), device=down.device)[:, None, None]
        pairs = (page, cells.run[:, begin:end, None], cells.run[:, None])
        beside, stacked = cells.beside[pairs], cells.stacked[pairs]
        near = []
        for across, along, bias, relation, relation_bias, related in (
            (down, right, self.row_bias, beside, self.beside_bias, None),
            (right, down, self.column_bias, stacked, self.stacked_bias, stacked < APART),
        ):
            # One table for the distance and the relation of a pair, [heads, across * along * relation].
            table = _TABLE_SCALE * (bias[..., None] + relation_bias[:, None, None]).flatten(1)
            reach = bias.shape[1] // 2
            seen = across.abs() <= reach
            seen = (seen if related is None else seen | related) & shown
            line, offset = across.clamp(-reach, reach) + reach, along.clamp(-FARTHEST, FARTHEST) + FARTHEST
            index = (line * bias.shape[2] + offset) * relation_bias.shape[1] + relation
            # Half of the least number: below the least one is -inf in float16, and then rows of padding are NaN.
            nothing = torch.finfo(table.dtype).min / 2
            near.append(table[:, index].transpose(0, 1).masked_fill(~seen[:, None], nothing))
        return torch.stack(near, dim=1)


class Linker(nn.Module):
    """Two steps of attention between the cells of a page: the first tells what a cell is, the second finds its words.

    Its cost grows with the square of the number of cells that show something.

    Args:
        dim: Width D of the cells' features.
        word_dim: Width W of word vectors, and of the linker's own features.
        heads: Heads along rows, and as many along columns.
        head_dim: Width of a head.
    """

    def __init__(self, *, dim: int, word_dim: int, heads: int = 2, head_dim: int = 32) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.entry = nn.Linear(dim, word_dim, bias=False)
        # What stands around a cell tells keys from values: a gap, a mark, capitals.
        self.around = nn.Conv2d(
            word_dim, word_dim, _AROUND, padding=(_AROUND[0] // 2, _AROUND[1] // 2), groups=word_dim
        )
        self.mix = nn.Linear(word_dim, word_dim)
        # So do the runs that stand beside, above and below it.
        self.context = PageAttention(dim=word_dim, heads=heads, head_dim=head_dim)
        self.context_in = nn.Linear(word_dim, head_dim, bias=False)
        self.context_out = nn.Sequential(
            nn.Linear(2 * heads * head_dim, 2 * word_dim), nn.GELU(), nn.Linear(2 * word_dim, word_dim)
        )
        self.attention = PageAttention(dim=word_dim, heads=heads, head_dim=head_dim)
        # Weights of the cell's own words and of what each head found.
        self.gates = nn.Linear(word_dim, 1 + 2 * heads)
        nn.init.constant_(self.gates.bias, 0.5)
        # What a cell is, beside what it says: a title, the name of a sender.
        self.role = nn.Linear(word_dim, word_dim, bias=False)
        nn.init.zeros_(self.role.weight)

    def forward(self, hidden: Tensor, words: Tensor, shown: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """Link the cells of pages.

        Args:
            hidden: [B, R, C, D] features of the cells.
            words: [B, R, C, W] sum of the words of every cell.
            shown: bool [B, R, C] cells that show something. Others are not looked at.
            begins: bool [B, R, C] a run of text begins in this cell, see `run_offsets`.

        Returns:
            The linked words and what every cell is, both [B, R, C, W] and 0 for cells that show nothing.
        """
        marked = MarkedCells(shown)
        _, row, col = marked.index
        entered = self.entry(self.norm(hidden[shown]))
        entered = entered + self.mix(F.gelu(self._around(entered, shown)))
        cells = shown_cells(marked.gathered(shown), marked.packed(row), marked.packed(col), marked.gathered(begins))
        hidden, near_words = marked.packed(entered), marked.gathered(words)
        context = self.context(hidden[:, None], self.context_in(hidden)[:, None], cells)[:, 0]
        hidden = hidden + self.context_out(context.flatten(2))
        found = self.attention(hidden[:, None], near_words[:, None], cells)[:, 0]
        gates = F.softplus(self.gates(hidden))
        linked = near_words * gates[..., :1] + (found * gates[..., 1:, None]).sum(dim=-2) + self.role(hidden)
        return marked.spread(linked), marked.spread(hidden)

    def _around(self, entered: Tensor, shown: Tensor) -> Tensor:
        """Convolve the features of the cells that show something, [N, W], by looking up their neighbours."""
        high, wide = (size // 2 for size in _AROUND)
        # Features of empty cells, and of those beyond the page, are 0.
        index = torch.full(shown.shape, len(entered), device=shown.device)
        index[shown] = torch.arange(len(entered), device=shown.device)
        index = F.pad(index, (wide, wide, high, high), value=len(entered))
        near = index.unfold(1, _AROUND[0], 1).unfold(2, _AROUND[1], 1)[shown].flatten(1)
        weight = self.around.weight.flatten(1)
        looked = F.pad(entered, (0, 0, 0, 1))[near]
        assert self.around.bias is not None
        return torch.einsum("nkw,wk->nw", looked, weight) + self.around.bias


def shown_cells(at: Tensor, rows: Tensor, cols: Tensor, begins: Tensor, image: Tensor | None = None) -> ShownCells:
    """Relate the cells of pages.

    Args:
        at: bool [B, N], False in padding, which comes last.
        rows: int64 [B, N], cells in reading order.
        cols: int64 [B, N].
        begins: bool [B, N] a run of text begins in this cell.
        image: int64 [B, N] see `ShownCells`.
    """
    runs, related = torch.zeros_like(rows), []
    for page, count in enumerate(at.sum(dim=1).tolist()):
        row, col = rows[page, :count], cols[page, :count]
        runs[page, :count] = number_runs(row, col, begins[page, :count])
        related.append(relate_runs(row, col, runs[page, :count]))
    most = max((len(one.beside) for one in related), default=0)

    def padded(matrices: list[Tensor]) -> Tensor:
        whole = rows.new_zeros(len(matrices), max(1, most), max(1, most))
        for page, matrix in zip(whole, matrices, strict=True):
            page[: len(matrix), : len(matrix)] = matrix
        return whole

    return ShownCells(
        at, rows, cols, padded([one.beside for one in related]), padded([one.stacked for one in related]), runs, image
    )
