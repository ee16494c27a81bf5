"""The copy output: an answer's next token is written by the language model, or copied from a local token.

Deviation: not in the paper. An option for small models that read pages. Values are strings that no training has seen;
a plain softmax over characters learns to spell what it attends to, but much more slowly (docs/log.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CopyOutput(nn.Module):
    """Mix the language model's distribution with that of the characters of the local tokens that it points at.

    Args:
        dim: Width D of the language model.
        slots: Characters K of a local token.
    """

    def __init__(self, *, dim: int, slots: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 1)
        self.slot = nn.Linear(dim, slots)

    def forward(self, hidden: Tensor, logits: Tensor, attention: Tensor, ids: Tensor) -> Tensor:
        """Return log-probabilities [N, V].

        Args:
            hidden: [N, D] last hidden states.
            logits: [N, V] of the language model.
            attention: [N, L] attention of the pointing heads to local tokens, their mean; its sum may be below 1.
            ids: int64 [N, L, K] token ids of the characters of these local tokens, 0 for none.
        """
        gate = self.gate(hidden).sigmoid()
        places = attention[..., None] * self.slot(hidden).softmax(dim=-1)[:, None]
        copied = torch.zeros_like(logits).scatter_add_(1, ids.flatten(1), places.flatten(1))
        # What points at an empty place copies nothing.
        copied = copied.index_fill(1, torch.zeros(1, dtype=torch.long, device=ids.device), 0.0)
        return torch.log((1.0 - gate) * logits.softmax(dim=-1) + gate * copied + 1e-8)
