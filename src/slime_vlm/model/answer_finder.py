"""The answer finder reads a page with the question in mind, and tells where the answer begins or that there is none.

Deviation: not in the paper. The language model reads local tokens before the question, as the paper has it, so its
tokens of a page cannot know what is asked. A large model makes up for that by its depth. One of four layers often
points at a wrong place, also in layouts that it was trained on (docs/log.md). The finder looks at the tokens that the
selector kept, in both directions of the page. Each of them knows how alike it and its neighbours are to the question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from slime_vlm.model.linker import MarkedCells, PageAttention, ShownCells, shown_cells

_SHARP = 4
"""Power that tells the most alike cells from others."""

_NOWHERE = -1e4

_LEAST = -15.0
"""Log-probabilities below this are alike, and so are odds beyond it."""

_ODDS = 5.0
"""Usual odds, so that the language model is told numbers of about 1."""


@dataclass(frozen=True)
class FinderCells:
    """What the answer finder has to know of the cells of the images of a row, in reading order, P of the fullest row.

    Attributes:
        contexts: [B, P, W] what the linker knows of them.
        rows: int64 [B, P]; those of a further image go on below the one before.
        cols: int64 [B, P].
        image: int64 [B, P] number of the image.
        begins: bool [B, P] a run of text begins in the cell.
        kept: bool [B, P] whether the language model reads it.
    """

    contexts: Tensor
    rows: Tensor
    cols: Tensor
    image: Tensor
    begins: Tensor
    kept: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> FinderCells:
        """Change all tensors."""
        return FinderCells(*(change(getattr(self, part.name)) for part in fields(self)))

    def followed_by(self, new: FinderCells) -> FinderCells:
        """Return the same with the cells of further images behind these."""
        below = self.rows.amax(dim=1, keepdim=True) + 1
        after = self.image.amax(dim=1, keepdim=True) + 1
        moved = replace(new, rows=new.rows + below, image=new.image + after)
        return FinderCells(
            *(torch.cat([getattr(self, part.name), getattr(moved, part.name)], dim=1) for part in fields(self))
        )


class FinderLayer(nn.Module):
    """Attention along the rows and columns of a page, and a step for every cell.

    Args:
        dim: Width of the cells' features.
        heads: Heads along rows, and as many along columns.
        head_dim: Width of a head.
    """

    def __init__(self, *, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.attention = PageAttention(dim=dim, heads=heads, head_dim=head_dim)
        self.values = nn.Linear(dim, head_dim, bias=False)
        self.out = nn.Linear(2 * heads * head_dim, dim, bias=False)
        self.mlp = nn.Sequential(nn.RMSNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, hidden: Tensor, cells: ShownCells) -> Tensor:
        """Take a step: [B, Q, N, dim] -> [B, Q, N, dim]."""
        normed = self.norm(hidden)
        hidden = hidden + self.out(self.attention(normed, self.values(normed), cells).flatten(3))
        return hidden + self.mlp(hidden)


class AnswerFinder(nn.Module):
    """Find where on a page the answers to questions begin.

    Args:
        word_dim: Width W of word vectors and of the linker's features.
        text_dim: Width D of the language model.
        dim: Width of the finder.
        heads: Heads along rows, and as many along columns.
        head_dim: Width of a head.
        layers: Layers of attention.
    """

    def __init__(
        self, *, word_dim: int, text_dim: int, dim: int = 128, heads: int = 2, head_dim: int = 32, layers: int = 3
    ) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(word_dim)
        self.context_in = nn.Linear(word_dim, dim)
        self.question_in = nn.Linear(word_dim, dim, bias=False)
        # Word by word of a cell and the question, for what the cell says and for what it belongs to.
        self.own_in = nn.Linear(word_dim, dim, bias=False)
        self.linked_in = nn.Linear(word_dim, dim, bias=False)
        self.likeness_in = nn.Sequential(nn.Linear(9, dim), nn.GELU(), nn.Linear(dim, dim))
        self.layers = nn.ModuleList(FinderLayer(dim=dim, heads=heads, head_dim=head_dim) for _ in range(layers))
        self.begins = nn.Linear(dim, 1)
        self.absent = nn.Sequential(nn.Linear(2 * dim + 3, dim), nn.GELU(), nn.Linear(dim, 1))
        # What the language model is told, and how much the copy output believes the finder.
        self.told = nn.Linear(1, text_dim, bias=False)
        self.trust = nn.Parameter(torch.empty(1))
        self.start()

    def start(self) -> None:
        """Set what training starts with: the finder is believed, and the language model is told nothing."""
        init.ones_(self.trust)
        init.zeros_(self.told.weight)
        for linear in (self.own_in, self.linked_in):
            # Products of unit vectors are small.
            init.normal_(linear.weight, std=1.0)

    def forward(
        self,
        contexts: Tensor,
        own: Tensor,
        linked: Tensor,
        question: Tensor,
        asked: Tensor,
        cells: ShownCells,
    ) -> Tensor:
        """Compare the cells of pages with questions.

        Args:
            contexts: [B, N, W] what the linker knows of cells.
            own: [B, N, W] unit vectors of the words that they touch.
            linked: [B, N, W] the same of the words linked to them.
            question: [B, Q, W] vectors of questions.
            asked: [B, Q, S, W] words of questions, unit vectors times their weight of at most 1; 0 in padding.
            cells: Where the cells stand.

        Returns:
            [B, Q, N + 1] log-probabilities that the answer begins in a cell, and, last, that there is none.
        """
        at = cells.at[:, None]
        alike = [
            torch.einsum("bnw,bqw->bqn", own, question),
            torch.einsum("bnw,bqw->bqn", linked, question),
            torch.einsum("bnw,bqsw->bqns", own, asked).amax(dim=-1),
        ]
        alike = [part.clamp(min=0) * at for part in alike]
        best = [part.amax(dim=-1, keepdim=True) for part in alike]
        ratios = [part / top.clamp(min=1e-3) for part, top in zip(alike, best, strict=True)]
        likeness = torch.stack([*alike, *ratios, *(part**_SHARP for part in ratios)], dim=-1)
        hidden = self.context_in(self.norm(contexts))[:, None] + self.question_in(question)[:, :, None]
        hidden = hidden + self.own_in(own[:, None] * question[:, :, None])
        hidden = hidden + self.linked_in(linked[:, None] * question[:, :, None]) + self.likeness_in(likeness)
        for layer in self.layers:
            hidden = layer(hidden, cells)
        scores = self.begins(hidden)[..., 0].masked_fill(~at, torch.finfo(hidden.dtype).min)
        weights = scores.softmax(dim=-1)[..., None]
        most = hidden.masked_fill(~at[..., None], -1e4).amax(dim=2).clamp(min=-1e3)
        pooled = torch.cat([(weights * hidden).sum(dim=2), most, *best], dim=-1)
        # Beside the best of many cells, not their number.
        absent = self.absent(pooled) + scores.amax(dim=-1, keepdim=True).detach().clamp(min=-1e3)
        return F.log_softmax(torch.cat([scores, absent], dim=-1).float(), dim=-1)

    def on_pages(
        self, pages: FinderCells, own: Tensor, linked: Tensor, question: Tensor, asked: Tensor, kept: Tensor
    ) -> Tensor:
        """Find answers among some cells of pages.

        Args:
            pages: The cells.
            own: [B, P, W], see `forward`.
            linked: [B, P, W].
            question: [B, Q, W].
            asked: [B, Q, S, W].
            kept: bool [B, P] cells that are looked at.

        Returns:
            [B, Q, P + 1] log-probabilities, see `forward`; those of cells that are not looked at are very small.
        """
        marked = MarkedCells(kept)
        places = (kept, pages.rows, pages.cols, pages.begins, pages.image)
        cells = shown_cells(*(marked.gathered(part) for part in places))
        near = [marked.gathered(part).to(question) for part in (pages.contexts, own, linked)]
        beginnings = self(*near, question, asked, cells).transpose(1, 2)
        return torch.cat([marked.spread(beginnings, _NOWHERE), beginnings[:, -1:]], dim=1).transpose(1, 2)

    def tell(self, absent: Tensor) -> Tensor:
        """Return what the first token of an answer is told: log-probabilities [...] of no answer -> [..., D]."""
        odds = absent - torch.log(-torch.expm1(absent.clamp(max=-1e-4)))
        return self.told((odds.clamp(_LEAST, -_LEAST) / _ODDS)[..., None].to(self.told.weight))

    def belief(self, beginnings: Tensor) -> Tensor:
        """Return what is added to the logarithm of how much local tokens are pointed at: log-probabilities -> [...]."""
        return self.trust * beginnings.clamp(min=_LEAST)
