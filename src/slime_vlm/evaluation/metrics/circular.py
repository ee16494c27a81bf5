"""Circular evaluation (MMBench): a question counts as right if every rotation of its options is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

ROTATION = 1_000_000
"""Rows whose `index` is equal modulo this number are rotations of one question."""


def circular_scores(rows: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Return 1.0 or 0.0 for every question, by its base index.

    Args:
        rows: Pairs of index and score. The score is 1.0 if the right letter of that rotation was given, else 0.0.
    """
    rotations: dict[int, list[float]] = defaultdict(list)
    for index, score in rows:
        rotations[index % ROTATION].append(score)
    return {base: float(all(score == 1.0 for score in scores)) for base, scores in rotations.items()}
