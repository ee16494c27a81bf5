"""Linear layers that multiply in int8 on CPUs without bfloat16 instructions.

Every row of the input has a scale of its own, so that a token's result does not depend on the other tokens: a batch
gives what its rows give alone. One scale for all rows would also round most tokens to nothing, since a few tokens of
large models have values a thousand times as large as the others.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from slime_vlm.checkpoints.inference_linear import InferenceLinear, replace_linear
from slime_vlm.diagnostics.cpu_features import cpu_has_vnni
from slime_vlm.errors import ConfigError
from slime_vlm.model.slime_model import SlimeModel

ENGINE = "x86"
"""The engine of `torch.backends.quantized` that multiplies."""

_WEIGHT_LEVELS = 127
_SMALLEST = 1e-12  # scale of a row of zeros
# Vision encoders made of convolutions: no gain for nano's, not measured for the other.
_UNTOUCHED = ("resnet", "slime_recogniser")


class Int8Linear(InferenceLinear):
    """A linear layer with int8 weights, scaled by output, and inputs that are rounded to int8, scaled by row.

    It computes in float32 otherwise.

    Args:
        linear: The layer in float32 whose weights it takes.
    """

    option: ClassVar[str] = "fast"
    kind: ClassVar[str] = "int8"

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        # Without VNNI two products are added in 16 bits, which have room for 7 bits of the input.
        self.levels = 127 if cpu_has_vnni() else 63
        weight = linear.weight.detach()
        scale = weight.abs().amax(dim=1).clamp_min(_SMALLEST).double() / _WEIGHT_LEVELS
        engine = torch.backends.quantized.engine
        torch.backends.quantized.engine = ENGINE
        try:
            with warnings.catch_warnings():
                # torch means to remove this kind of tensor, and has no other way to these kernels yet.
                warnings.simplefilter("ignore", UserWarning)
                zeros = torch.zeros(self.out_features, dtype=torch.int64)
                rounded = torch.quantize_per_channel(weight, scale, zeros, 0, torch.qint8)
                self._weight: Any = torch.ops.quantized.linear_prepack(rounded, None)
        finally:
            torch.backends.quantized.engine = engine

    def forward(self, x: Tensor) -> Tensor:
        """Transform [..., in_features] to [..., out_features]."""
        rows = x.reshape(-1, self.in_features)
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(_SMALLEST)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        out = product(rows / scale, 1 / self.levels, self.levels + 1, self._weight).mul_(scale)
        if self.bias is not None:
            out.add_(self.bias)
        return out.view(*x.shape[:-1], self.out_features)


def check_int8() -> None:
    """Check that this processor and this torch have the kernels.

    Raises:
        ConfigError: They are missing.
    """
    if ENGINE not in torch.backends.quantized.supported_engines:
        found = ", ".join(torch.backends.quantized.supported_engines)
        raise ConfigError(
            f"fast needs a CPU with bfloat16 instructions or torch's '{ENGINE}' kernels for int8, found {found}; "
            "leave it out"
        )


def use_int8(model: SlimeModel) -> None:
    """Replace the linear layers of the vision encoder and the language model, in place.

    Encoders made of convolutions stay as they are, and so do all parts between encoder and language model, the
    embeddings and the head: the selection compares embeddings.
    """
    parts: list[nn.Module] = [model.language_model]
    if model.config.vision_config.model_type not in _UNTOUCHED:
        parts.append(model.vision_tower)
    replace_linear(parts, Int8Linear)
