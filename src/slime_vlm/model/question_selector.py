"""Text-guided selection of local tokens (paper section 3.3).

Selection is hard: it yields a mask of kept tokens, which `token_merging` turns into shorter sequences. No gradient of
the language model's loss reaches a selector; its scores are differentiable by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.errors import ConfigError

# Local tokens that are compared with the text at once.
_BLOCK = 8192


@dataclass
class Selection:
    """What the selector decided for a batch of images; places past an image's own L tokens are padding.

    Attributes:
        scores: [I, L] relevance of every local token to the text, without the noise of training.
        probs: [I, L] the scores (in training with noise) as probabilities, 0 in padding.
        kept: [I, L] bool, the tokens to keep, False in padding.
    """

    scores: Tensor
    probs: Tensor
    kept: Tensor


class AttentionScorer(nn.Module):
    """The published attention variant: tokens that read the text, then a small MLP to one score.

    Args:
        dim: Width D of the language model.
        num_heads: Attention heads.

    Raises:
        ConfigError: The width does not divide into the heads.
    """

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"width {dim} does not divide into {num_heads} heads, change query_attention_head_dim")
        self.num_heads = num_heads
        self.norm_query = nn.LayerNorm(dim)
        self.norm_input = nn.LayerNorm(dim)
        self.norm_output = nn.LayerNorm(dim)
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.score_1 = nn.Linear(dim, dim // 4)
        self.score_2 = nn.Linear(dim // 4, 1)

    def forward(self, local_tokens: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Score local tokens: [I, L, D], text [I, S, D] and its mask [I, S] -> [I, L]."""
        inputs = self.norm_input(text)
        queries = self.q_proj(self.norm_query(local_tokens)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        keys = self.k_proj(inputs).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        values = self.v_proj(inputs).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        # Deviation: a row without any text would attend to nothing and give NaN; let it attend to everything instead.
        mask = text_mask | ~text_mask.any(dim=-1, keepdim=True)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None])
        hidden = self.norm_output(self.out_proj(attended.transpose(1, 2).flatten(-2)))
        return self.score_2(F.relu(self.score_1(hidden))).squeeze(-1)


def cosine_scores(local_tokens: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
    """Sum over text tokens of the cosine between a local token and a text token.

    By linearity that is one product: unit local tokens times the sum of the unit text vectors.

    Args:
        local_tokens: [I, L, D].
        text: [I, S, D] input embeddings of the text.
        text_mask: [I, S] True on the tokens to compare with.

    Returns:
        [I, L] float32.
    """
    text_unit = F.normalize(text.float(), dim=-1, eps=1e-8)
    text_sum = (text_unit * text_mask[..., None]).sum(dim=1)
    # In blocks, so that an image of hundreds of tiles is not copied as a whole; seven tiles of 144 are one block.
    blocks = [
        F.normalize(block.float(), dim=-1, eps=1e-8) @ text_sum[..., None] for block in local_tokens.split(_BLOCK, 1)
    ]
    return torch.cat(blocks, dim=1).squeeze(-1)


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where the mask is True; 0 elsewhere."""
    return logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)


def keep_most_probable(probs: Tensor, lengths: Tensor, top_p: float, max_tokens: int | None = None) -> Tensor:
    """Mark the most probable tokens of every image.

    Tokens are taken from the most probable down: as many as have a cumulative probability <= top_p, and one more.

    Args:
        probs: [I, L], 0 in padding.
        lengths: [I] number of real tokens of every image.
        top_p: Probability mass; 1.0 keeps all.
        max_tokens: Fixed budget that replaces top_p: exactly so many are kept, or all where there are fewer.

    Returns:
        [I, L] bool.
    """
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    if max_tokens is not None:
        # Deviation: not in the paper, whose selection has a length of its own for every question.
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
    """Scores local tokens against the question and keeps the most probable ones.

    Args:
        kind: "cosine", "attention" or "none" (keeps all and scores nothing).
        dim: Width D of the language model.
        num_heads: Heads of the attention variant.
    """

    def __init__(self, *, kind: str, dim: int, num_heads: int = 1) -> None:
        super().__init__()
        self.kind = kind
        self.scorer = AttentionScorer(dim=dim, num_heads=num_heads) if kind == "attention" else None

    def scores(
        self, local_tokens: Tensor, text: Tensor, text_mask: Tensor, local_mask: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Relevance of local tokens [I, L, D] to the text [I, S, D], as [I, L] float32."""
        if self.scorer is None:
            return cosine_scores(local_tokens, text, text_mask)
        # Published behaviour: the attention variant's scores are probabilities already and pass the softmax twice.
        return masked_softmax(self.scorer(local_tokens, text, text_mask).float() / temperature, local_mask)

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
    ) -> Selection:
        """Select the local tokens of every image.

        Args:
            local_tokens: [I, L, D], padded to the longest image.
            text: [I, S, D] input embeddings of the row that holds the image.
            text_mask: [I, S] True on the tokens that the selector may see.
            lengths: [I] number of real local tokens.
            temperature: Temperature of the softmax over an image's local tokens.
            noise_std: Standard deviation of the noise that training adds to the scores.
            top_p: See `keep_most_probable`.
            max_tokens: See `keep_most_probable`.
            noise: [I, L] standard normal numbers to use in place of drawn ones; only in training.
        """
        local_mask = torch.arange(local_tokens.shape[1], device=lengths.device) < lengths[:, None]
        if self.kind == "none":
            zeros = torch.zeros(local_mask.shape, device=lengths.device)
            return Selection(scores=zeros, probs=masked_softmax(zeros, local_mask), kept=local_mask)
        scores = self.scores(local_tokens, text, text_mask, local_mask, temperature)
        if self.training and noise_std > 0:
            noise = torch.randn_like(scores) if noise is None else noise.to(scores)
            probs = masked_softmax((scores + noise_std * noise) / temperature, local_mask)
        else:
            probs = masked_softmax(scores / temperature, local_mask)
        kept = keep_most_probable(probs.detach(), lengths, top_p, max_tokens)
        return Selection(scores=scores, probs=probs, kept=kept)
