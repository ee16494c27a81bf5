"""Projection of vision features and the soft mixture of two adapters for the global view (paper section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.model.query_attention import QueryAttention


def pool_features(features: Tensor, factor: int) -> Tensor:
    """Average factor x factor features of a square map in raster order: [V, N, C] -> [V, N / factor ** 2, C].

    Deviation: not in the paper. An encoder with small patches has thousands of features of the global view.
    """
    if factor == 1:
        return features
    side = math.isqrt(features.shape[1])
    pooled = F.avg_pool2d(features.unflatten(1, (side, side)).permute(0, 3, 1, 2), factor)
    return pooled.flatten(2).transpose(1, 2)


class VisionProjector(nn.Module):
    """MLP_proj of the paper: Linear, exact GELU, Linear.

    Args:
        vision_dim: Width C of vision features.
        dim: Width D of the language model.
        bias: Whether both layers have biases.
    """

    def __init__(self, *, vision_dim: int, dim: int, bias: bool = True) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(vision_dim, dim, bias=bias)
        self.linear_2 = nn.Linear(dim, dim, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Project [..., C] -> [..., D]."""
        return self.linear_2(F.gelu(self.linear_1(features)))


class GlobalAdapter(nn.Module):
    """Soft mixture of the MLP adapter and the attention adapter, gated per token.

    g = softmax(x W_g) / (sum + 1e-6) and out = g_1 MLP_proj(x) + g_2 MLP_proj(Resampler_N(x)). In training the logits
    get noise with the spread softplus(x W_g) + 0.01. As published, the spread comes from W_g itself.

    Args:
        num_tokens: Vision tokens N of a view, with one query each.
        vision_dim: Width C of vision features.
        num_heads: Heads of the query attention.
    """

    def __init__(self, *, num_tokens: int, vision_dim: int, num_heads: int) -> None:
        super().__init__()
        self.query_attention = QueryAttention(num_queries=num_tokens, dim=vision_dim, num_heads=num_heads)
        # Zero, so that both adapters start with a weight of one half.
        self.gate_weight = nn.Parameter(torch.zeros(vision_dim, 2))

    def adapter_weights(self, features: Tensor, *, gate_noise: bool = True, noise: Tensor | None = None) -> Tensor:
        """Compute the weights of both adapters for every token.

        Args:
            features: [..., N, C].
            gate_noise: Whether training adds noise to the logits.
            noise: [..., N, 2] standard normal numbers to use instead of drawn ones, only in training.

        Returns:
            [..., N, 2], column 0 for the MLP adapter.
        """
        logits = features @ self.gate_weight
        if self.training and gate_noise:
            noise = torch.randn_like(logits) if noise is None else noise.to(logits)
            logits = logits + noise * (F.softplus(logits) + 0.01)
        weights = logits.softmax(dim=-1)
        return weights / (weights.sum(dim=-1, keepdim=True) + 1e-6)

    def forward(
        self,
        features: Tensor,
        project: Callable[[Tensor], Tensor],
        *,
        gate: str = "mixture",
        gate_noise: bool = True,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Adapt global views.

        Args:
            features: [V, N, C].
            project: MLP_proj. Both adapters and the local tokens share it.
            gate: "mixture", or "mlp" or "attention" for a single adapter (stages 1a and 1b).
            gate_noise: See `adapter_weights`.
            noise: See `adapter_weights`.

        Returns:
            Tokens [V, N, D], and the adapters' weights [V, N, 2], None for a single adapter.
        """
        if gate == "mlp":
            return project(features), None
        if gate == "attention":
            return project(self.query_attention(features)), None
        weights = self.adapter_weights(features, gate_noise=gate_noise, noise=noise)
        tokens = weights[..., :1] * project(features) + weights[..., 1:] * project(self.query_attention(features))
        return tokens, weights
