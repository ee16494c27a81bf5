"""Score the benchmarks whose letters are extracted by MMBench's rules."""

from __future__ import annotations

from slime_vlm.evaluation.benchmarks.benchmark import Target
from slime_vlm.evaluation.metrics.choices import stated_letter


def score_stated_letter(prediction: str, target: Target) -> float:
    """Return 1.0 if the option that a prediction states is the right one, else 0.0.

    Args:
        prediction: The model's answer.
        target: Has `options`, the texts by letter, and `answer`, the right letter.
    """
    return float(stated_letter(prediction, target["options"]) == target["answer"])
