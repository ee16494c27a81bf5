"""The choice of a token from logits."""

from __future__ import annotations

import torch
from torch import Tensor

from slime_vlm.serving.jobs import Sampling


class Sampler:
    """Chooses the tokens of one answer, with random numbers of its own: other requests do not change it."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator: torch.Generator | None = None
        if sampling.temperature > 0:
            self._generator = torch.Generator()
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> list[int]:
        """Choose a token for every row of logits [rows, vocabulary]."""
        if self._generator is None:
            found: list[int] = logits.argmax(dim=-1).tolist()
            return found
        # On the CPU, where a seed means the same on every machine.
        # The largest logit becomes 0, so that no temperature is too small to divide by.
        relative = logits.double().cpu() - logits.double().cpu().amax(dim=-1, keepdim=True)
        probs = (relative / self._sampling.temperature).softmax(dim=-1)
        ordered, order = probs.sort(dim=-1, descending=True)
        # Of the tokens beyond top_p, the first one is kept: so there is always one.
        ordered[ordered.cumsum(dim=-1) - ordered > self._sampling.top_p] = 0.0
        drawn = torch.multinomial(ordered, 1, generator=self._generator)
        chosen: list[int] = order.gather(-1, drawn)[:, 0].tolist()
        return chosen
