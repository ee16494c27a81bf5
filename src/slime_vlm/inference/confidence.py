"""How sure a model is of an answer: the mean probability of the answer's tokens.

A checkpoint may say how its mean probabilities become the share of answers that are right (`answer_calibration`, see
`scripts/calibrate_answers.py`). A model that names characters also counts how certain it read them, see `reading`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

_MOST = 1.0 - 1e-6
_MOST_READING = 1.0 - 1e-3
"""Sums of probabilities around a place reach 1 easily: beyond this they say nothing more."""


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


def calibrated(mean: float, calibration: Sequence[float] | None, reading: float | None = None) -> float:
    """Turn the mean probability of an answer's tokens into the share of such answers that are right.

    Args:
        mean: Mean probability, in 0..1.
        calibration: Slope and offset of the logit of `mean`, and the slope of the logit of `reading` if there is one.
            None leaves `mean` as it is.
        reading: Certainty of the least certain character of the answer, in 0..1.
    """
    if calibration is None:
        return mean
    slope, offset, *more = calibration
    total = slope * _logit(mean, _MOST) + offset
    if more and reading is not None:
        total += more[0] * _logit(reading, _MOST_READING)
    return 1.0 / (1.0 + math.exp(-total))


def _logit(share: float, most: float) -> float:
    held = min(max(share, 1.0 - most), most)
    return math.log(held / (1.0 - held))


def fit_calibration(
    means: Sequence[float], right: Sequence[bool], readings: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Fit the numbers of `calibrated` to answers, by the likelihood of what was right.

    Args:
        means: Mean probability of every answer.
        right: Whether it is right. Some have to be, and some not.
        readings: See `calibrated`.

    Returns:
        Slope and offset, and the slope of readings if there are some.
    """
    columns = [[_logit(mean, _MOST) for mean in means], [1.0] * len(means)]
    if readings is not None:
        columns.append([_logit(reading, _MOST_READING) for reading in readings])
    inputs = torch.tensor(columns, dtype=torch.float64)
    target = torch.tensor(right, dtype=torch.float64)
    usual = torch.tensor([1.0, 0.0, 0.0][: len(columns)], dtype=torch.float64)
    line = usual.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(line @ inputs, target)
        # A little ridge: with few answers a perfect split would make the slopes endless.
        value = value + 1e-3 * ((line - usual)[torch.arange(len(line)) != 1] ** 2).sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return tuple(line.tolist())
