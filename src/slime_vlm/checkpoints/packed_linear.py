"""Linear layers with weights in the order in which oneDNN reads them, for inference in float32.

torch multiplies with MKL, which has no AVX-512 for processors of AMD. oneDNN, which torch has, too, uses it: 250
against 115 GFLOP/s on one core of an EPYC, 135 with AVX2. Results differ by rounding alone. See `docs/performance.md`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from slime_vlm.checkpoints.inference_linear import InferenceLinear, replace_linear
from slime_vlm.diagnostics.cpu_features import cpu_gains_from_packing
from slime_vlm.model.slime_model import SlimeModel

_ROWS = 577
"""Rows that the weights are packed for. Any number works, and all are faster than without."""


class PackedLinear(InferenceLinear):
    """A linear layer with packed weights.

    Args:
        linear: The layer in float32 whose weights it takes.
    """

    option: ClassVar[str] = "packed"
    kind: ClassVar[str] = "packed"

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self._weight: Any = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """Transform [..., in_features] to [..., out_features]."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")
        return out


def can_pack() -> bool:
    """Return whether this processor gains from packed weights, and this torch can pack them."""
    return cpu_gains_from_packing() and torch.backends.mkldnn.is_available()


def use_packed(model: SlimeModel) -> None:
    """Replace the linear layers that process tokens of images and of the language model, in place."""
    parts = ("vision_tower", "projector", "global_adapter", "local_compressor", "language_model")
    replace_linear([getattr(model, name, None) for name in parts], PackedLinear)
