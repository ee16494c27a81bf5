"""ANLS, the average normalised Levenshtein similarity (DocVQA, InfoVQA)."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


def anls(prediction: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Return the similarity to the nearest accepted answer, or 0 if it is below `threshold`.

    Texts are compared in lower case with white space folded. The distance is divided by the length of the longer text
    before that, in upper case. Upper case is longer than the text where it holds letters such as ß. This is the rule of
    the RRC portal's scripts, which lmms-eval and VLMEvalKit use.
    """
    distances = [_distance(prediction, answer) for answer in answers]
    similarity = 1.0 - min(distances, default=1.0)
    return similarity if similarity >= threshold else 0.0


def anls_llava(prediction: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Return ANLS by the evaluator that comes with LLaVA: inner white space counts, and lengths are of stripped texts.

    Deviation: two empty texts are equal. The published function divides by zero.
    """
    given = prediction.lower().strip()
    similarities = [Levenshtein.normalized_similarity(given, answer.lower().strip()) for answer in answers]
    return max((one for one in similarities if one >= threshold), default=0.0)


def _distance(prediction: str, answer: str) -> float:
    longest = max(len(prediction.upper()), len(answer.upper()))
    if not longest:
        return 0.0
    return Levenshtein.distance(_folded(prediction), _folded(answer)) / longest


def _folded(text: str) -> str:
    # `İ` in lower case is two characters. White space is folded after that, as published.
    return " ".join(text.strip().lower().split())
