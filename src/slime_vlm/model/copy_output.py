"""The copy output: an answer's next token is written by the language model, copied from a local token, or it follows.

Deviation: not in the paper. An option for small models that read pages. Values are strings that no training has seen;
a plain softmax over characters learns to spell what it attends to, but much more slowly (docs/log.md). Once the first
character of a value is found, the others follow it on the page: the language model is told which one is next, and has
to say where the value ends.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def following_places(ids: Tensor) -> Tensor:
    """Return where the character after each one stands: the next of its cell, or the first of the cell to its right.

    Args:
        ids: int64 [R, C, K] character ids of the cells of a page in reading order, 0 for nothing.

    Returns:
        int64 [R * C * K] index among all places of the page, -1 where none follows.
    """
    index = torch.arange(ids.numel(), device=ids.device).view_as(ids)
    right = torch.full_like(index[..., :1], -1)
    right[:, :-1] = index[:, 1:, :1]
    flat = ids.flatten()

    def shown(places: Tensor) -> Tensor:
        return (places >= 0) & (flat[places.clamp(min=0)] != 0)

    following = torch.cat([index[..., 1:], right], dim=-1)
    following = torch.where(shown(following), following, right)
    return following.masked_fill(~shown(following) | (ids == 0), -1).flatten()


_LIKENESS_SCALE = 10.0
"""The weights of likenesses learn faster at a tenth of their size."""


class CopyOutput(nn.Module):
    """Mix the language model's distribution with the characters that it points at, and with the one that follows.

    Args:
        dim: Width D of the language model.
        slots: Characters K of a local token.
        characters: Number of character ids, nothing among them.
    """

    def __init__(self, *, dim: int, slots: int, characters: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 3)
        self.slot = nn.Linear(dim, slots)
        self.following = nn.Embedding(characters, dim)
        self.similarity = nn.Linear(1, dim)
        self.likeness = nn.Parameter(self.first_likeness())
        with torch.no_grad():
            self.gate.bias.copy_(self.first_gates())

    def first_gates(self) -> Tensor:
        """Return the biases of the gate that training starts with: what follows is right nearly always."""
        return torch.tensor([0.0, 0.0, 2.0])

    def first_likeness(self) -> Tensor:
        """Return the weights of the likenesses that training starts with, see `liken`."""
        return torch.tensor([0.8, 0.8])

    def told(self, follows: Tensor) -> Tensor:
        """Return what the language model's input gains by knowing what follows: int64 [...] -> [..., D], 0 for none."""
        return self.following(follows) * (follows > 0)[..., None]

    def told_similarity(self, cosines: Tensor) -> Tensor:
        """Return what the first token of an answer is told of how alike the best local token is to the question.

        Deviation: not in the paper. Nothing else tells so well whether a thing is on the page at all.

        Args:
            cosines: [...] largest cosines of local tokens to the question.

        Returns:
            [..., D].
        """
        return self.similarity(cosines[..., None])

    def liken(
        self, attention: Tensor, linked: Tensor, own: Tensor, local: Tensor, belief: Tensor | None = None
    ) -> Tensor:
        """Point more at local tokens that belong to what is asked, and less at those that say it: a key is no value.

        Deviation: not in the paper. Heads learn this layout by layout. Said of the words themselves it holds for
        layouts that they have not seen.

        Args:
            attention: [..., L].
            linked: [..., L] cosine of every token's linked words to the question.
            own: [..., L] the same of the words that it touches.
            local: bool [..., L] which tokens are local. All of these together are pointed at as much as before.
            belief: [..., L] what an answer finder adds to the logarithm. None for nothing.

        Returns:
            [..., L].
        """
        weights = _LIKENESS_SCALE * self.likeness
        exponent = weights[0] * linked - weights[1] * own
        weighted = attention * (exponent if belief is None else exponent + belief).exp() * local
        share = (attention * local).sum(dim=-1, keepdim=True) / weighted.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        return torch.where(local, weighted * share, attention)

    def places(self, hidden: Tensor, attention: Tensor) -> Tensor:
        """Return how much every character of local tokens is pointed at.

        Args:
            hidden: [N, D] last hidden states.
            attention: [N, L] attention to local tokens.

        Returns:
            [N, L, K], a token's attention shared out among its characters.
        """
        return attention[..., None] * self.slot(hidden).softmax(dim=-1)[:, None]

    def forward(self, hidden: Tensor, logits: Tensor, attention: Tensor, ids: Tensor, follows: Tensor) -> Tensor:
        """Return log-probabilities [N, V].

        Args:
            hidden: [N, D] last hidden states.
            logits: [N, V] of the language model.
            attention: [N, L] attention of the pointing heads to local tokens, their mean; its sum may be below 1.
            ids: int64 [N, L, K] token ids of the characters of these local tokens, 0 for none.
            follows: int64 [N] character after the one that was copied last, 0 for none.
        """
        none = (follows == 0)[:, None]
        write, copy, follow = (
            self.gate(hidden)
            .masked_fill(none & (torch.arange(3, device=hidden.device) == 2), -torch.inf)
            .softmax(dim=-1)
            .to(logits.dtype)
            .split(1, dim=-1)
        )
        places = self.places(hidden, attention)
        copied = torch.zeros_like(logits).scatter_add_(1, ids.flatten(1), places.flatten(1))
        # What points at an empty place copies nothing.
        copied = copied.index_fill(1, torch.zeros(1, dtype=torch.long, device=ids.device), 0.0)
        mixed = write * logits.softmax(dim=-1) + copy * copied
        return torch.log(mixed.scatter_add(1, follows[:, None], follow) + 1e-8)

    def pointed(self, hidden: Tensor, attention: Tensor, ids: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
        """Return from where a character was copied: the local token and the place within it, int64 [N] both.

        Args:
            hidden: See `forward`, and so on.
            attention: [N, L].
            ids: [N, L, K].
            said: int64 [N] the character. Where no local token shows it the result means nothing.
        """
        places = self.places(hidden, attention)
        best = places.masked_fill(ids != said[:, None, None], -1.0).flatten(1).argmax(dim=-1)
        return best // ids.shape[-1], best % ids.shape[-1]
