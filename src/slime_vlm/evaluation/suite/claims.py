"""What the paper says of its parts, and whether these predictions bear it out; nothing is read into wide intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slime_vlm.evaluation.suite.summary import Summary

MARGIN = 0.02
"""Accuracy that may be lost while two settings still count as equal."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper in terms of settings.

    Attributes:
        text: the claim.
        other: the setting that the model as it is is compared with.
        kind: "better" than the other; or the other "keeps" its accuracy with fewer tokens.
    """

    text: str
    other: str
    kind: str


CLAIMS = (
    Claim("90% of the local tokens are enough", "best 90%", "keeps"),
    Claim("75% of the local tokens are enough", "best 75%", "keeps"),
    Claim("50% of the local tokens are enough", "best 50%", "keeps"),
    Claim("global and local tokens are better than global ones alone", "global only", "better"),
    Claim("global and local tokens are better than local ones alone", "local only", "better"),
    Claim("the mixture is better than the MLP adapter alone", "mlp alone", "better"),
    Claim("the mixture is better than the attention adapter alone", "attention alone", "better"),
    Claim("the question chooses better than chance", "random as many", "better"),
    Claim("the question chooses better than the whole prompt", "prompt as many", "better"),
    Claim("a larger picture is better than one of 336 pixels", "resized to 336", "better"),
)


def verdict(kind: str, low: float, high: float) -> str:
    """What an interval of the difference, other less reference, says about a claim.

    Args:
        kind: see `Claim`.
        low: lower end.
        high: upper end.

    Returns:
        "holds", "does not hold" or "cannot be told".
    """
    if kind == "keeps":
        return "holds" if low > -MARGIN else "does not hold" if high < -MARGIN else "cannot be told"
    # Equal within the margin on both sides is no better, either.
    if high < 0:
        return "holds"
    return "does not hold" if low > 0 or low > -MARGIN else "cannot be told"


def claims_table(summaries: Sequence[Summary]) -> str:
    """The claims that the predictions can be held against, in Markdown; "" where there is none."""
    found = {summary.setting.name: summary for summary in summaries}
    lines = []
    for claim in CLAIMS:
        if claim.other not in found or found[claim.other].difference is None:
            continue
        value, low, high = found[claim.other].difference or (0.0, 0.0, 0.0)
        said = verdict(claim.kind, low, high)
        lines.append(f"| {claim.text} | {claim.other} | {value:+.2f} ({low:+.2f} to {high:+.2f}) | {said} |")
    if not lines:
        return ""
    head = (
        "| claim | compared | its accuracy less that of the model as it is (95%) | here |\n| --- | --- | --- | --- |\n"
    )
    return head + "\n".join(lines)
