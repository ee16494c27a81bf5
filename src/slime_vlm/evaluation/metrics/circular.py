"""Circular evaluation (MMBench): a question counts when every rotation of its options is answered right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

ROTATION = 1_000_000
"""Rows whose `index` is equal modulo this are rotations of one question."""


def circular_scores(rows: Iterable[tuple[int, float]]) -> dict[int, float]:
    """1.0 or 0.0 by base question.

    Args:
        rows: (index, 1.0 where the rotation's own letter was given, else 0.0).
    """
    rotations: dict[int, list[float]] = defaultdict(list)
    for index, score in rows:
        rotations[index % ROTATION].append(score)
    return {base: float(all(score == 1.0 for score in scores)) for base, scores in rotations.items()}
