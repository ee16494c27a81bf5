"""Text-guided selection of local tokens (paper section 3.3).

The selector returns a boolean mask of kept tokens, and `token_merging` turns it into shorter sequences. No gradient of
the language model's loss reaches the selector. The scores themselves are differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slime_vlm.model.selectors import SELECTORS


@dataclass
class Selection:
    """Scores and kept tokens of a batch of images. Positions past an image's own L tokens are padding.

    Attributes:
        scores: [I, L] relevance of every local token to the text, without the noise of training.
        probs: [I, L] probabilities of the scores (with noise in training), 0 in padding.
        kept: [I, L] bool, True on the tokens to keep, False in padding.
    """

    scores: Tensor
    probs: Tensor
    kept: Tensor


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Apply the softmax over the last dimension where the mask is True. The result is 0 elsewhere."""
    return logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)


def keep_most_probable(probs: Tensor, lengths: Tensor, top_p: float, max_tokens: int | None = None) -> Tensor:
    """Mark the most probable tokens of every image.

    Tokens are sorted by probability. Kept are those whose cumulative probability is <= top_p, and the next one.

    Args:
        probs: [I, L], 0 in padding.
        lengths: [I] number of real tokens of every image.
        top_p: Probability mass to keep. 1.0 keeps all tokens.
        max_tokens: Fixed budget, used instead of top_p: keep exactly this many tokens, or all if there are fewer.

    Returns:
        [I, L] bool.
    """
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    if max_tokens is not None:
        # Deviation: not in the paper, where every question keeps a different number of tokens.
        counts = torch.full_like(lengths, max_tokens)
    elif top_p >= 1.0:
        # Deviation: the published rule drops the tail when the cumulative sum passes 1.0 early in float32.
        counts = lengths
    else:
        counts = (ordered.cumsum(dim=-1) <= top_p).sum(dim=-1) + 1
    counts = counts.minimum(lengths)
    ranks = torch.empty_like(order)
    ranks.scatter_(-1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order))
    # Padding has probability 0 and, the sort being stable, comes after every real token.
    return ranks < counts[:, None]


class QuestionSelector(nn.Module):
    """Score local tokens against the question and keep the most probable ones.

    Args:
        kind: A key of `selectors.SELECTORS`.
        dim: Width D of the language model.
        num_heads: Heads of a scorer that uses attention.
    """

    def __init__(self, *, kind: str, dim: int, num_heads: int = 1) -> None:
        super().__init__()
        selector = SELECTORS[kind]
        self.softmax_scores = selector.softmax_scores
        self.scorer = None if selector.build is None else selector.build(dim, num_heads)

    def forward(
        self,
        local_tokens: Tensor,
        text: Tensor,
        text_mask: Tensor,
        lengths: Tensor,
        *,
        temperature: float = 1.0,
        noise_std: float = 0.1,
        top_p: float = 0.95,
        max_tokens: int | None = None,
        noise: Tensor | None = None,
        rows: Tensor | None = None,
        norms: Tensor | None = None,
    ) -> Selection:
        """Select the local tokens of every image.

        Args:
            local_tokens: [I, L, D], padded to the longest image.
            text: [R, S, D] input embeddings of the rows that hold the images.
            text_mask: [R, S] True on the tokens that the selector compares with.
            lengths: [I] number of real local tokens.
            temperature: Temperature of the softmax over an image's local tokens.
            noise_std: Standard deviation of the noise that training adds to the scores.
            top_p: See `keep_most_probable`.
            max_tokens: See `keep_most_probable`.
            noise: [I, L] standard normal numbers to use instead of drawn ones, only in training.
            rows: [I] index of the row that holds the image. None: as many rows as images, one each.
            norms: [I, L] `VisionTokens.local_norms` of the images. None computes those that the scorer needs.
        """
        local_mask = torch.arange(local_tokens.shape[1], device=lengths.device) < lengths[:, None]
        if self.scorer is None:
            zeros = torch.zeros(local_mask.shape, device=lengths.device)
            return Selection(scores=zeros, probs=masked_softmax(zeros, local_mask), kept=local_mask)
        scores = self.scorer(local_tokens, text, text_mask, rows, norms).float()
        if self.softmax_scores:
            scores = masked_softmax(scores / temperature, local_mask)
        if self.training and noise_std > 0:
            noise = torch.randn_like(scores) if noise is None else noise.to(scores)
            probs = masked_softmax((scores + noise_std * noise) / temperature, local_mask)
        else:
            probs = masked_softmax(scores / temperature, local_mask)
        kept = keep_most_probable(probs.detach(), lengths, top_p, max_tokens)
        return Selection(scores=scores, probs=probs, kept=kept)
