"""Relaxed accuracy (ChartQA): numbers within five percent, other answers equal."""

from __future__ import annotations

import math


def relaxed_accuracy(prediction: str, answer: str, tolerance: float = 0.05) -> float:
    """1.0 when both are numbers and at most `tolerance` of the answer apart, or the texts are equal but for case.

    A trailing % divides by 100, thousands separators are no part of a number, and against an answer of 0 texts are
    compared. The order of arguments matters: the error is relative to the answer.
    """
    given, wanted = _number(prediction), _number(answer)
    if given is not None and wanted:
        return float(abs(given - wanted) / abs(wanted) <= tolerance)
    return float(prediction.strip().lower() == answer.strip().lower())


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        value = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
