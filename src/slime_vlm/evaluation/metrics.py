"""Metrics: text in, number out."""

from __future__ import annotations


def exact_match(prediction: str, answer: str) -> float:
    """1.0 when both texts are equal after folding white space; case counts."""
    return float(" ".join(prediction.split()) == " ".join(answer.split()))
