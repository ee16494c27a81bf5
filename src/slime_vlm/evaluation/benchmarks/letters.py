"""The score of benchmarks whose letters are read as MMBench's rules read them."""

from __future__ import annotations

from slime_vlm.evaluation.benchmarks.benchmark import Target
from slime_vlm.evaluation.metrics.choices import stated_letter


def score_stated_letter(prediction: str, target: Target) -> float:
    """Whether the option that a prediction states is the answer.

    Args:
        prediction: what the model said.
        target: with `options`, texts by their letter, and `answer`, the right letter.

    Returns:
        1.0 or 0.0; an answer that states no option is wrong.
    """
    return float(stated_letter(prediction, target["options"]) == target["answer"])
