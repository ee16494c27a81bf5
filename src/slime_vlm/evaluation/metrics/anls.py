"""ANLS, the average normalised Levenshtein similarity (DocVQA, InfoVQA)."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


def anls(prediction: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Similarity to the nearest accepted answer; below `threshold` it counts as none.

    Texts are compared in lower case with white space folded, and the distance is divided by the longer of the texts
    as they came.
    """
    distances = [_distance(prediction, answer) for answer in answers]
    similarity = 1.0 - min(distances, default=1.0)
    return similarity if similarity >= threshold else 0.0


def _distance(prediction: str, answer: str) -> float:
    longest = max(len(prediction), len(answer))
    if not longest:
        return 0.0
    return Levenshtein.distance(_folded(prediction), _folded(answer)) / longest


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
