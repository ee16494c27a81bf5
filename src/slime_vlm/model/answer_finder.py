"""The answer finder reads a page with the question in mind: where the answer begins and ends, or that there is none.

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

NOWHERE = -1e4
"""Log-probability of cells that are not looked at."""

_LEAST = -15.0
"""Log-probabilities below this are alike, and so are odds beyond it."""

_PLACES = 32
"""Words of a question beyond this many have one place."""

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


class AskedAttention(nn.Module):
    """Attention of cells to the words of a question.

    Args:
        dim: Width of both.
        heads: Heads.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(dim)
        self.queries = nn.Linear(dim, dim, bias=False)
        self.pairs = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, hidden: Tensor, asked: Tensor, is_word: Tensor) -> Tensor:
        """Look: [B, Q, N, dim] at [B, Q, S, dim], of which `is_word` [B, Q, S] are words -> [B, Q, N, dim]."""
        queries = self.queries(self.norm(hidden)).unflatten(-1, (self.heads, -1)).transpose(2, 3)
        keys, values = self.pairs(asked).unflatten(-1, (2 * self.heads, -1)).transpose(2, 3).chunk(2, dim=2)
        found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=is_word[:, :, None, None])
        return self.out(found.transpose(2, 3).flatten(3))


class FinderLayer(nn.Module):
    """Attention along the rows and columns of a page and to the words of a question, and a step for every cell.

    Args:
        dim: Width of the cells' features.
        heads: Heads along rows, and as many along columns.
        asks: Whether it looks at a question.
    """

    def __init__(self, *, dim: int, heads: int, asks: bool) -> None:
        super().__init__()
        head_dim = dim // heads // 2
        self.norm = nn.RMSNorm(dim)
        self.attention = PageAttention(dim=dim, heads=heads, head_dim=head_dim)
        self.values = nn.Linear(dim, head_dim, bias=False)
        self.out = nn.Linear(2 * heads * head_dim, dim, bias=False)
        self.asked = AskedAttention(dim=dim, heads=heads) if asks else None
        self.mlp = nn.Sequential(nn.RMSNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(
        self, hidden: Tensor, cells: ShownCells, words: Tensor | None = None, is_word: Tensor | None = None
    ) -> Tensor:
        """Take a step: [B, Q, N, dim] -> [B, Q, N, dim].

        Args:
            hidden: Features of the cells.
            cells: Where they stand.
            words: [B, Q, S, dim] the words of the question.
            is_word: bool [B, Q, S] False in padding.
        """
        normed = self.norm(hidden)
        hidden = hidden + self.out(self.attention(normed, self.values(normed), cells).flatten(3))
        if self.asked is not None and words is not None and is_word is not None:
            hidden = hidden + self.asked(hidden, words, is_word)
        return hidden + self.mlp(hidden)


class AskedWords(nn.Module):
    """The words of a question, each with those around it.

    Args:
        word_dim: Width W of word vectors.
        dim: Width of the finder.
        heads: Heads of attention.
    """

    def __init__(self, *, word_dim: int, dim: int, heads: int) -> None:
        super().__init__()
        self.entry = nn.Linear(word_dim, dim, bias=False)
        self.whole = nn.Linear(word_dim, dim)
        self.places = nn.Embedding(_PLACES, dim)
        self.layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, question: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Read questions: [B, Q, W] and [B, Q, S, W] -> [B, Q, 1 + S, dim], and which of them are words."""
        count = asked.shape[2]
        places = self.places(torch.arange(count, device=asked.device).clamp(max=_PLACES - 1))
        words = torch.cat([self.whole(question)[:, :, None], self.entry(asked) + places], dim=2)
        # The question as a whole is there even if it has no word.
        is_word = F.pad((asked != 0).any(dim=-1), (1, 0), value=True)
        read = self.layer(words.flatten(0, 1), src_key_padding_mask=~is_word.flatten(0, 1))
        return read.view_as(words), is_word


class AnswerFinder(nn.Module):
    """Find where on a page the answers to questions begin and end.

    Args:
        word_dim: Width W of word vectors and of the linker's features.
        text_dim: Width D of the language model.
        dim: Width of the finder.
        heads: Heads along rows, and as many along columns.
        page_layers: Layers that read the page alone, the same for all questions.
        layers: Layers that read it with a question in mind.
    """

    def __init__(
        self, *, word_dim: int, text_dim: int, dim: int = 160, heads: int = 2, page_layers: int = 3, layers: int = 4
    ) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(word_dim)
        self.context_in = nn.Linear(word_dim, dim)
        self.page_words_in = nn.Linear(2 * word_dim, dim, bias=False)
        self.page_layers = nn.ModuleList(FinderLayer(dim=dim, heads=heads, asks=False) for _ in range(page_layers))
        self.asked_words = AskedWords(word_dim=word_dim, dim=dim, heads=heads)
        # Word by word of a cell and the question, for what the cell says and for what it belongs to.
        self.own_in = nn.Linear(word_dim, dim, bias=False)
        self.linked_in = nn.Linear(word_dim, dim, bias=False)
        self.likeness_in = nn.Sequential(nn.Linear(9, dim), nn.GELU(), nn.Linear(dim, dim))
        self.layers = nn.ModuleList(FinderLayer(dim=dim, heads=heads, asks=True) for _ in range(layers))
        self.begins = nn.Linear(dim, 1)
        self.absent = nn.Sequential(nn.Linear(2 * dim + 3, dim), nn.GELU(), nn.Linear(dim, 1))
        # Read once more, knowing where it begins.
        self.begun = nn.Parameter(torch.empty(dim))
        self.end_layer = FinderLayer(dim=dim, heads=heads, asks=True)
        self.ends = nn.Linear(dim, 1)
        # What the language model is told, and how much the copy output believes the finder.
        self.told = nn.Linear(1, text_dim, bias=False)
        self.told_end = nn.Linear(1, text_dim, bias=False)
        self.trust = nn.Parameter(torch.empty(1))
        self.start()

    def start(self) -> None:
        """Set what training starts with: the finder is believed, and the language model is told nothing."""
        init.ones_(self.trust)
        init.normal_(self.begun)
        for linear in (self.told, self.told_end):
            init.zeros_(linear.weight)
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
        begun: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compare the cells of pages with questions.

        Args:
            contexts: [B, N, W] what the linker knows of cells.
            own: [B, N, W] unit vectors of the words that they touch.
            linked: [B, N, W] the same of the words linked to them.
            question: [B, Q, W] vectors of questions.
            asked: [B, Q, S, W] words of questions, unit vectors times their weight of at most 1; 0 in padding.
            cells: Where the cells stand.
            begun: bool [B, Q, N] where answers begin, as training knows it. None for where they begin most probably.

        Returns:
            [B, Q, N + 1] log-probabilities that the answer begins in a cell, and, last, that there is none, and
            [B, Q, N] that an answer which begins there ends in a cell.
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
        page = self.context_in(self.norm(contexts)) + self.page_words_in(torch.cat([own, linked], dim=-1))
        page = page[:, None]
        for layer in self.page_layers:
            page = layer(page, cells)
        words, is_word = self.asked_words(question, asked)
        hidden = page + self.own_in(own[:, None] * question[:, :, None])
        hidden = hidden + self.linked_in(linked[:, None] * question[:, :, None]) + self.likeness_in(likeness)
        for layer in self.layers:
            hidden = layer(hidden, cells, words, is_word)
        none = torch.finfo(hidden.dtype).min
        scores = self.begins(hidden)[..., 0].masked_fill(~at, none)
        weights = scores.softmax(dim=-1)[..., None]
        most = hidden.masked_fill(~at[..., None], -1e4).amax(dim=2).clamp(min=-1e3)
        pooled = torch.cat([(weights * hidden).sum(dim=2), most, *best], dim=-1)
        # Beside the best of many cells, not their number.
        absent = self.absent(pooled) + scores.amax(dim=-1, keepdim=True).detach().clamp(min=-1e3)
        if begun is None:
            begun = F.one_hot(scores.argmax(dim=-1), scores.shape[-1]).bool()
        hidden = self.end_layer(hidden + begun[..., None] * self.begun, cells, words, is_word)
        ends = self.ends(hidden)[..., 0].masked_fill(~at, none)
        beginnings = torch.cat([scores, absent], dim=-1)
        return F.log_softmax(beginnings.float(), dim=-1), F.log_softmax(ends.float(), dim=-1)

    def on_pages(
        self,
        pages: FinderCells,
        own: Tensor,
        linked: Tensor,
        question: Tensor,
        asked: Tensor,
        kept: Tensor,
        begun: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Find answers among some cells of pages.

        Args:
            pages: The cells.
            own: [B, P, W], see `forward`.
            linked: [B, P, W].
            question: [B, Q, W].
            asked: [B, Q, S, W].
            kept: bool [B, P] cells that are looked at.
            begun: bool [B, Q, P].

        Returns:
            [B, Q, P + 1] and [B, Q, P] log-probabilities, see `forward`; those of cells that are not looked at are very
            small.
        """
        marked = MarkedCells(kept)
        places = (kept, pages.rows, pages.cols, pages.begins, pages.image)
        cells = shown_cells(*(marked.gathered(part) for part in places))
        near = [marked.gathered(part).to(question) for part in (pages.contexts, own, linked)]
        if begun is not None:
            begun = marked.gathered(begun.transpose(1, 2)).transpose(1, 2)
        found, ends = (part.transpose(1, 2) for part in self(*near, question, asked, cells, begun))
        beginnings = torch.cat([marked.spread(found[:, :-1], NOWHERE), found[:, -1:]], dim=1)
        return beginnings.transpose(1, 2), marked.spread(ends, NOWHERE).transpose(1, 2)

    def tell(self, absent: Tensor) -> Tensor:
        """Return what the first token of an answer is told: log-probabilities [...] of no answer -> [..., D]."""
        return self.told(_odds(absent)[..., None].to(self.told.weight))

    def tell_end(self, ends: Tensor) -> Tensor:
        """Return what a character of an answer is told: log-probabilities [...] that it ends in its cell -> [..., D].

        A character without a cell, -inf, is told nothing.
        """
        known = (ends > -torch.inf)[..., None]
        return self.told_end(_odds(ends)[..., None].to(self.told_end.weight)) * known

    def belief(self, beginnings: Tensor) -> Tensor:
        """Return what is added to the logarithm of how much local tokens are pointed at: log-probabilities -> [...]."""
        return self.trust * beginnings.clamp(min=_LEAST)


def _odds(log_probs: Tensor) -> Tensor:
    """Return the logarithm of odds, limited and of about 1."""
    odds = log_probs - torch.log(-torch.expm1(log_probs.clamp(max=-1e-4)))
    return odds.clamp(_LEAST, -_LEAST) / _ODDS
