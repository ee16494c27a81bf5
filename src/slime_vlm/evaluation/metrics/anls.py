"""ANLS, the average normalised Levenshtein similarity (DocVQA, InfoVQA)."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


def anls(prediction: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Return the similarity to the nearest accepted answer, or 0 if it is below `threshold`.

    Texts are compared in lower case with white space folded. The distance is divided by the length of the longer text
    before that.
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
