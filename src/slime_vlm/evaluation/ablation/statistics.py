"""Accuracy with its uncertainty. Questions about one page are not independent, so pages are drawn, not questions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 2000

Tally = tuple[float, int]
"""Right answers of a page, and its questions."""


def wilson(right: float, number: int) -> tuple[float, float]:
    """The 95% interval of a share by Wilson's formula; (0, 1) without any observation."""
    if not number:
        return 0.0, 1.0
    share, z = right / number, Z95
    middle = share + z * z / (2 * number)
    reach = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def accuracy(pages: Sequence[Tally]) -> float:
    """Right answers over questions, of all pages together."""
    questions = sum(number for _, number in pages)
    return sum(right for right, _ in pages) / questions if questions else math.nan


def accuracy_interval(pages: Sequence[Tally]) -> tuple[float, float]:
    """The 95% interval of the accuracy by the bootstrap over pages (percentiles, a fixed seed).

    Where every answer is right or every one is wrong the bootstrap sees no spread; Wilson's interval over as many
    observations as there are pages stands in, which is the cautious choice.
    """
    if accuracy(pages) in (0.0, 1.0):
        return wilson(accuracy(pages) * len(pages), len(pages))
    return _percentiles([right for right, _ in pages], [number for _, number in pages])


def difference_interval(pages: Sequence[tuple[float, float, int]]) -> tuple[float, float, float]:
    """The difference of two accuracies on the same questions, and its 95% interval by the bootstrap over pages.

    Where no page differs the bootstrap sees no spread either, which proves nothing of other pages: the share of pages
    that differ, which bounds the difference, has Wilson's interval for none of so many.

    Args:
        pages: right answers by one and by the other, and questions, of every page.
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
    # A page may hold nothing but questions about what is absent.
    ratios = sums[totals > 0] / totals[totals > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
