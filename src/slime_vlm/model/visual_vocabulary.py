"""Projection through a soft distribution over embedding tables (known from the Ovis models).

Deviation: not in the paper. An option for small models that are trained from scratch. A slot names one thing that a
token can hold, such as a character or a word. The table has an embedding for each, so the language model can be trained
on exact tokens before any pixel is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.errors import ConfigError, InputError


class VisualVocabulary(nn.Module):
    """MLP_proj that ends in K slots of logits. A token is the sum of the slots' expected embeddings.

    Args:
        vision_dim: Width C of vision features.
        dim: Width D of the language model.
        slot_sizes: Number of entries of each of the K slots.
        bias: Whether both layers have biases.

    Raises:
        ConfigError: There is no slot, or a slot is empty.
    """

    def __init__(self, *, vision_dim: int, dim: int, slot_sizes: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        if not slot_sizes or min(slot_sizes) < 1:
            raise ConfigError(f"projector_vocabulary is {list(slot_sizes)}, expected one positive size per slot")
        self.slot_sizes = list(slot_sizes)
        self.linear_1 = nn.Linear(vision_dim, dim, bias=bias)
        self.linear_2 = nn.Linear(dim, sum(slot_sizes), bias=bias)
        # One table for all slots, so that embedding K ids is a single look-up.
        self.table = nn.Parameter(torch.empty(sum(slot_sizes), dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the tables from N(0, 0.02)."""
        nn.init.normal_(self.table, std=0.02)

    def slot_logits(self, features: Tensor) -> list[Tensor]:
        """Compute the logits of every slot: [..., C] -> K tensors [..., size_k]."""
        return list(self.linear_2(F.gelu(self.linear_1(features))).split(self.slot_sizes, dim=-1))

    def embed_probs(self, probs: Sequence[Tensor]) -> Tensor:
        """Return the expected embedding, summed over slots: K tensors [..., size_k] -> [..., D]."""
        return torch.cat(list(probs), dim=-1) @ self.table

    def embed_ids(self, ids: Tensor) -> Tensor:
        """Embed exact entries and sum over slots: [..., K] long -> [..., D].

        Raises:
            InputError: The last dimension is not the number of slots.
        """
        if ids.shape[-1] != len(self.slot_sizes):
            raise InputError(
                f"got {ids.shape[-1]} id(s) per token, expected one for each of {len(self.slot_sizes)} slots"
            )
        offsets = torch.tensor([0, *self.slot_sizes[:-1]], device=ids.device).cumsum(0)
        bags = (ids + offsets).reshape(-1, ids.shape[-1])
        return F.embedding_bag(bags, self.table, mode="sum").view(*ids.shape[:-1], -1)

    def forward(self, features: Tensor) -> Tensor:
        """Project [..., C] -> [..., D]."""
        return self.embed_probs([logits.softmax(dim=-1) for logits in self.slot_logits(features)])
