"""Relaxed accuracy (ChartQA): numbers may differ by five percent, other answers must be equal."""

from __future__ import annotations


def relaxed_accuracy(prediction: str, answer: str, tolerance: float = 0.05) -> float:
    """Return 1.0 if both are numbers within `tolerance` of the answer, or the texts are equal except for case.

    A final % divides by 100. Thousands separators are not accepted in numbers. If the answer is 0, the texts are
    compared. `nan` and `inf` are numbers, and equal nothing. The order of arguments matters: the error is relative to
    the answer.
    """
    given, wanted = _number(prediction), _number(answer)
    if given is not None and wanted:
        return float(abs(given - wanted) / abs(wanted) <= tolerance)
    return float(prediction.lower() == answer.lower())


def relaxed_accuracy_slime(prediction: str, answer: str) -> float:
    """Return relaxed accuracy by SliME's script, which swaps its arguments: the error is relative to the prediction."""
    return relaxed_accuracy(answer, prediction.strip())


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
