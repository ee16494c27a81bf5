"""Accuracy with its uncertainty. Questions of one unit, such as a page, are not independent, so units are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 2000

_DRAWN_AT_ONCE = 4_000_000

Tally = tuple[float, int]
"""Number of right answers of a unit, and number of its questions."""


def wilson(right: float, number: int) -> tuple[float, float]:
    """Return the 95% interval of a share by Wilson's formula, or (0, 1) without any observation."""
    if not number:
        return 0.0, 1.0
    share, z = right / number, Z95
    middle = share + z * z / (2 * number)
    reach = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def accuracy(units: Sequence[Tally]) -> float:
    """Return the share of right answers over all units."""
    questions = sum(number for _, number in units)
    return sum(right for right, _ in units) / questions if questions else math.nan


def accuracy_interval(units: Sequence[Tally]) -> tuple[float, float]:
    """Return the 95% interval of the accuracy by the bootstrap over units (percentiles, a fixed seed).

    If all answers are right, or all are wrong, the bootstrap sees no spread. Wilson's interval over as many
    observations as there are units is used instead, which is the cautious choice.
    """
    if accuracy(units) in (0.0, 1.0):
        return wilson(accuracy(units) * len(units), len(units))
    return _percentiles([right for right, _ in units], [number for _, number in units])


def difference_interval(units: Sequence[tuple[float, float, int]]) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same questions, and its 95% interval by the bootstrap over units.

    If no unit differs, the bootstrap sees no spread, which proves nothing about other units. The share of units that
    differ bounds the difference. Wilson's interval of that share, for 0 of as many units, is used instead.

    Args:
        units: For every unit, the number of right answers of each of the two, and the number of questions.
    """
    differences, questions = [one - other for one, other, _ in units], [number for *_, number in units]
    if not sum(questions):
        return math.nan, math.nan, math.nan
    if not any(differences):
        reach = wilson(0, len(units))[1]
        return 0.0, -reach, reach
    return sum(differences) / sum(questions), *_percentiles(differences, questions)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test, two-sided.

    It is how likely so uneven a split is if either side is equally likely to be the only one that is right.

    Args:
        only_first: Number of questions that only the first of two models answers right.
        only_second: Number of questions that only the second answers right.
    """
    number = only_first + only_second
    tail = sum(math.comb(number, smaller) for smaller in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**number)


def _percentiles(values: Sequence[float], weights: Sequence[int]) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    sums, totals = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    ratios: list[np.ndarray] = []
    # Some draws at a time: a large benchmark has hundreds of thousands of units.
    at_once = max(1, _DRAWN_AT_ONCE // len(values))
    for start in range(0, RESAMPLES, at_once):
        drawn = generator.integers(len(values), size=(min(at_once, RESAMPLES - start), len(values)))
        whole = totals[drawn].sum(axis=1)
        # A page may have only questions about something absent.
        ratios.append(sums[drawn].sum(axis=1)[whole > 0] / whole[whole > 0])
    low, high = np.percentile(np.concatenate(ratios), [2.5, 97.5])
    return float(low), float(high)
