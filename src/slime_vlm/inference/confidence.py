"""How sure a model is of an answer: the mean probability of the answer's tokens.

A checkpoint may say how its mean probabilities become the share of answers that are right (`answer_calibration`, see
`scripts/calibrate_answers.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

_MOST = 1.0 - 1e-6


class ProbabilityRecorder(LogitsProcessor):
    """Record the probability of every token that greedy decoding chooses, and change nothing.

    It has to be the last processor: what the others forbid has no probability.
    """

    def __init__(self) -> None:
        self._chosen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Record the largest probability of each row of scores [B, V]."""
        self._chosen.append(scores.float().softmax(dim=-1).amax(dim=-1))
        return scores

    def means(self, lengths: Sequence[int]) -> list[float]:
        """Return the mean probability of the first tokens of every row, `lengths` of them.

        Args:
            lengths: New tokens of every row, at least 1, the end token counted.
        """
        rows = torch.stack(self._chosen, dim=1).tolist()
        return [sum(row[:length]) / length for row, length in zip(rows, lengths, strict=True)]


def calibrated(mean: float, calibration: Sequence[float] | None) -> float:
    """Turn the mean probability of an answer's tokens into the share of such answers that are right.

    Args:
        mean: Mean probability, in 0..1.
        calibration: Slope and offset of the logit of `mean`. None leaves it as it is.
    """
    if calibration is None:
        return mean
    slope, offset = calibration
    held = min(max(mean, 1.0 - _MOST), _MOST)
    return 1.0 / (1.0 + math.exp(-(slope * math.log(held / (1.0 - held)) + offset)))


def fit_calibration(means: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """Fit slope and offset of `calibrated` to answers, by the likelihood of what was right.

    Args:
        means: Mean probability of every answer.
        right: Whether it is right. Some have to be, and some not.
    """
    held = torch.tensor(means, dtype=torch.float64).clamp(1.0 - _MOST, _MOST).logit()
    target = torch.tensor(right, dtype=torch.float64)
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(line[0] * held + line[1], target)
        # A little ridge: with few answers a perfect split would make the slope endless.
        value = value + 1e-3 * (line[0] - 1.0) ** 2
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    slope, offset = line.tolist()
    return slope, offset
