"""The loss of the language model on labelled tokens only. Logits are computed in chunks, never all at once.

A row of 2,048 tokens and a vocabulary of 128,000 entries give 1 GB of logits in float32, and another 1 GB for their
gradient. Only answers have labels, so most of these logits would not be used.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from slime_vlm.model.collectives import most_of_all
from slime_vlm.model.labels import IGNORED_LABEL

TOKENS_PER_CHUNK = 1024


def text_loss(
    to_logits: Callable[[Tensor], Tensor],
    hidden: Tensor,
    labels: Tensor,
    num_items: Tensor | int | None = None,
    *,
    tokens_per_chunk: int = TOKENS_PER_CHUNK,
    together: bool = False,
) -> Tensor:
    """Compute the shifted cross-entropy over labelled tokens, equal to the plain loss (paper section 3.4).

    Only the logits of one chunk exist at a time. With several chunks they are computed again for the gradient.

    Args:
        to_logits: Maps hidden states [n, D] to logits [n, vocabulary].
        hidden: [B, S, D].
        labels: [B, S], -100 where nothing is predicted.
        num_items: Divisor of the summed loss. None takes the number of labelled tokens.
        tokens_per_chunk: Maximum number of tokens of a chunk.
        together: Whether all processes of a run call this at the same time. The head then runs equally often in each,
            which is required if its weights are sharded over them.

    Returns:
        The loss, 0 if nothing is labelled.
    """
    targets = labels[:, 1:].to(hidden.device)
    labelled = targets != IGNORED_LABEL
    # Select first, then compute: the head only runs on labelled tokens.
    states, targets = hidden[:, :-1][labelled], targets[labelled]

    def loss_of(part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(to_logits(part).float(), target, reduction="sum")

    chunks = max(1, -(-len(targets) // tokens_per_chunk))
    chunks = most_of_all(chunks, hidden.device) if together else chunks
    if chunks == 1:
        total = loss_of(states, targets)
    else:
        spans = [slice(first * tokens_per_chunk, (first + 1) * tokens_per_chunk) for first in range(chunks)]
        # Stacked and summed, so that the sum has the type and graph of its parts.
        losses = [checkpoint(loss_of, states[span], targets[span], use_reentrant=False) for span in spans]
        total = torch.stack(losses).sum()
    if num_items is None:
        num_items = len(targets)
    return total / (num_items.to(total.device).clamp(min=1) if isinstance(num_items, Tensor) else max(num_items, 1))
