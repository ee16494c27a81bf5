"""Linear layers whose weights have a form for inference alone: no gradient, no other device or type, no saving."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from slime_vlm.errors import ConfigError


class InferenceLinear(nn.Module):
    """A linear layer in float32 on a CPU that only computes. Subclasses hold the weights.

    Args:
        linear: The layer in float32 whose place it takes.

    Attributes:
        option: The option of `load` that leads to such layers, for messages.
        kind: What they are, for messages.
    """

    option: ClassVar[str]
    kind: ClassVar[str]

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = None if linear.bias is None else linear.bias.detach()

    def train(self, mode: bool = True) -> InferenceLinear:
        """Stay in evaluation.

        Raises:
            ConfigError: Training is asked for.
        """
        if mode:
            self._refuse("trained")
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InferenceLinear:
        moved = fn(torch.empty(0))
        if moved.device.type != "cpu" or moved.dtype != torch.float32:
            self._refuse(f"moved to {moved.device.type} in {str(moved.dtype).removeprefix('torch.')}")
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self._refuse("saved")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigError(
            f"a model loaded with {self.option} has {self.kind} layers for CPUs and cannot be {what}; load it without "
            f"{self.option}"
        )

    def extra_repr(self) -> str:
        """Describe the layer as `nn.Linear` does."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def replace_linear(parts: Iterable[nn.Module | None], kind: type[InferenceLinear]) -> None:
    """Replace the linear layers of some parts of a model, in place. Subclasses of `nn.Linear` stay."""
    for part in filter(None, parts):
        for name, layer in list(part.named_modules()):
            if type(layer) is nn.Linear:
                part.set_submodule(name, kind(layer).eval())
