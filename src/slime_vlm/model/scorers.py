"""Scorers of the selectors: the relevance of local tokens to a text (paper section 3.3). See `selectors.SELECTORS`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.errors import ConfigError

# Local tokens that are compared with the text at once.
_BLOCK = 8192
_SMALLEST = 1e-8


class CosineScorer(nn.Module):
    """Score local tokens by `cosine_scores`. It has no weights."""

    def forward(
        self,
        local_tokens: Tensor,
        text: Tensor,
        text_mask: Tensor,
        rows: Tensor | None = None,
        norms: Tensor | None = None,
    ) -> Tensor:
        """Score local tokens [I, L, D] by texts [R, S, D] with masks [R, S], see `cosine_scores`."""
        return cosine_scores(local_tokens, text, text_mask, rows, norms)


class AttentionScorer(nn.Module):
    """The published attention variant: local tokens attend to the text, then a small MLP gives one score.

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

    def forward(
        self,
        local_tokens: Tensor,
        text: Tensor,
        text_mask: Tensor,
        rows: Tensor | None = None,
        norms: Tensor | None = None,
    ) -> Tensor:
        """Score local tokens [I, L, D] by texts [R, S, D] with masks [R, S], see `cosine_scores` for `rows`.

        Norms are not needed here.
        """
        inputs = self.norm_input(text)
        queries = self.q_proj(self.norm_query(local_tokens)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        keys = self.k_proj(inputs).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        values = self.v_proj(inputs).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        # Deviation: a row without any text would attend to nothing and give NaN; let it attend to everything instead.
        mask = text_mask | ~text_mask.any(dim=-1, keepdim=True)
        if rows is not None:
            keys, values, mask = keys[rows], values[rows], mask[rows]
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None])
        hidden = self.norm_output(self.out_proj(attended.transpose(1, 2).flatten(-2)))
        return self.score_2(F.relu(self.score_1(hidden))).squeeze(-1)


def cosine_scores(
    local_tokens: Tensor, text: Tensor, text_mask: Tensor, rows: Tensor | None = None, norms: Tensor | None = None
) -> Tensor:
    """Sum the cosines between a local token and every token of its text.

    By linearity that is one product: the local token times the sum of the unit text vectors, divided by its norm.

    Args:
        local_tokens: [I, L, D].
        text: [R, S, D] input embeddings of the texts.
        text_mask: [R, S] True on the tokens to compare with.
        rows: [I] index of the text of every image. None: one text each.
        norms: [I, L] what `token_norms` gives for the local tokens, computed earlier. None computes them.

    Returns:
        [I, L] float32.
    """
    if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
        # What was encoded in inference mode cannot be kept for a backward pass, a copy of it can.
        local_tokens = local_tokens.clone() if local_tokens.is_inference() else local_tokens
        norms = norms.clone() if norms is not None and norms.is_inference() else norms
    text_unit = F.normalize(text.float(), dim=-1, eps=_SMALLEST)
    text_sum = (text_unit * text_mask[..., None]).sum(dim=1)[..., None]
    text_sum = text_sum if rows is None else text_sum[rows]
    # In blocks, so that an image of hundreds of tiles is not copied as a whole; seven tiles of 144 are one block.
    products = [block.float() @ text_sum for block in local_tokens.split(_BLOCK, 1)]
    norms = token_norms(local_tokens) if norms is None else norms
    return torch.cat(products, dim=1).squeeze(-1) / norms


def token_norms(tokens: Tensor) -> Tensor:
    """Return the norms [...] of tokens [..., D] as float32, at least so large that one can divide by them."""
    blocks = [torch.linalg.vector_norm(block.float(), dim=-1) for block in tokens.split(_BLOCK, -2)]
    return torch.cat(blocks, dim=-1).clamp(min=_SMALLEST)
