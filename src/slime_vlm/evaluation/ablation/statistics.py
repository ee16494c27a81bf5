"""Accuracy with its uncertainty. Questions about one page are not independent, so the bootstrap draws pages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 2000

Tally = tuple[float, int]
"""Number of right answers of a page, and number of its questions."""


def wilson(right: float, number: int) -> tuple[float, float]:
    """Return the 95% interval of a share by Wilson's formula, or (0, 1) without any observation."""
    if not number:
        return 0.0, 1.0
    share, z = right / number, Z95
    middle = share + z * z / (2 * number)
    reach = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def accuracy(pages: Sequence[Tally]) -> float:
    """Return the share of right answers over all pages."""
    questions = sum(number for _, number in pages)
    return sum(right for right, _ in pages) / questions if questions else math.nan


def accuracy_interval(pages: Sequence[Tally]) -> tuple[float, float]:
    """Return the 95% interval of the accuracy by the bootstrap over pages (percentiles, a fixed seed).

    If all answers are right, or all are wrong, the bootstrap sees no spread. Wilson's interval over as many
    observations as there are pages is used instead, which is the cautious choice.
    """
    if accuracy(pages) in (0.0, 1.0):
        return wilson(accuracy(pages) * len(pages), len(pages))
    return _percentiles([right for right, _ in pages], [number for _, number in pages])


def difference_interval(pages: Sequence[tuple[float, float, int]]) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same questions, and its 95% interval by the bootstrap over pages.

    If no page differs, the bootstrap sees no spread, which proves nothing about other pages. The share of pages that
    differ bounds the difference. Wilson's interval of that share, for 0 of as many pages, is used instead.

    Args:
        pages: For every page, the number of right answers of each of the two, and the number of questions.
    """
    differences, questions = [one - other for one, other, _ in pages], [number for *_, number in pages]
    if not sum(questions):
        return math.nan, math.nan, math.nan
    if not any(differences):
        reach = wilson(0, len(pages))[1]
        return 0.0, -reach, reach
    return sum(differences) / sum(questions), *_percentiles(differences, questions)


def _percentiles(values: Sequence[float], weights: Sequence[int]) -> tuple[float, float]:
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    totals = np.asarray(weights, dtype=float)[drawn].sum(axis=1)
    sums = np.asarray(values, dtype=float)[drawn].sum(axis=1)
    # A page may have only questions about something absent.
    ratios = sums[totals > 0] / totals[totals > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
