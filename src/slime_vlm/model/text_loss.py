"""The language model's loss where there is something to predict: no logits for images and prompts, never all at once.

A row of 2,048 tokens and a vocabulary of 128,000 words make logits of 1 GB in float32, and as much again for their
gradient, and most of them are thrown away: only answers have labels.
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
    """Shifted cross-entropy over labelled tokens: the value and gradients of the plain loss (paper section 3.4).

    Logits of one chunk exist at a time. With more than one chunk they are computed a second time for the gradient.

    Args:
        to_logits: Hidden states [n, D] to logits [n, vocabulary].
        hidden: [B, S, D].
        labels: [B, S], -100 where nothing is predicted.
        num_items: Divides the sum of the losses; None = the number of labelled tokens.
        tokens_per_chunk: Most logits at a time.
        together: Whether all processes of a run do this at the same time. The head then runs equally often in each, as
            it has to where its weights are spread over them.

    Returns:
        The loss; 0 where nothing is labelled.
    """
    targets = labels[:, 1:].to(hidden.device)
    asked = targets != IGNORED_LABEL
    # Choosing first and computing then: rows of `states` are all that the head ever sees.
    states, targets = hidden[:, :-1][asked], targets[asked]

    def loss_of(part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(to_logits(part).float(), target, reduction="sum")

    chunks = max(1, -(-len(targets) // tokens_per_chunk))
    chunks = most_of_all(chunks, hidden.device) if together else chunks
    if chunks == 1:
        total = loss_of(states, targets)
    else:
        spans = [slice(first * tokens_per_chunk, (first + 1) * tokens_per_chunk) for first in range(chunks)]
        # Summed by hand, so that the sum has the type and graph of its parts.
        losses = [checkpoint(loss_of, states[span], targets[span], use_reentrant=False) for span in spans]
        total = torch.stack(losses).sum()
    if num_items is None:
        num_items = len(targets)
    return total / (num_items.to(total.device).clamp(min=1) if isinstance(num_items, Tensor) else max(num_items, 1))
