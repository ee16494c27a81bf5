"""Test the paper's claims about its parts on the predictions of an ablation. Wide intervals give no verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slime_vlm.evaluation.ablation.settings import REFERENCE
from slime_vlm.evaluation.ablation.summary import compare, shared_pages
from slime_vlm.evaluation.predictions import Row

MARGIN = 0.02
"""Loss of accuracy up to which two settings count as equal."""

FEWEST_PAGES = 20
"""Fewer pages give no verdict: if they happen to agree, the bootstrap sees no uncertainty."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper in terms of settings.

    Attributes:
        text: The claim.
        setting: The setting that it is about.
        other: The setting that it is compared with.
        equal: Whether the claim is that nothing is lost against the other. Otherwise it is that the setting is better.
    """

    text: str
    setting: str
    other: str
    equal: bool = False


CLAIMS = (
    Claim("90% of the local tokens are enough", "best 90%", "all", equal=True),
    Claim("75% of the local tokens are enough", "best 75%", "all", equal=True),
    Claim("50% of the local tokens are enough", "best 50%", "all", equal=True),
    Claim("what the model keeps by its own rule is enough", REFERENCE, "all", equal=True),
    Claim("global and local tokens are better than global ones alone", REFERENCE, "global only"),
    Claim("global and local tokens are better than local ones alone", REFERENCE, "local only"),
    Claim("the mixture is better than the MLP adapter alone", REFERENCE, "mlp alone"),
    Claim("the mixture is better than the attention adapter alone", REFERENCE, "attention alone"),
    Claim("the question chooses better than chance", "question as many", "random as many"),
    Claim("the question chooses better than the whole prompt", "question as many", "prompt as many"),
    Claim("a page at full size is better than one of 336 pixels", REFERENCE, "resized to 336"),
)


def verdict(low: float, high: float, *, equal: bool, pages: int) -> str:
    """Return what the interval of a difference (setting minus other) says about a claim.

    Args:
        low: Lower end.
        high: Upper end.
        equal: See `Claim`.
        pages: Number of pages that the interval comes from.

    Returns:
        "holds", "does not hold" or "cannot be told".
    """
    if pages < FEWEST_PAGES:
        return "cannot be told"
    if equal:
        return "holds" if low > -MARGIN else "does not hold" if high < -MARGIN else "cannot be told"
    return "holds" if low > 0 else "does not hold" if high < MARGIN else "cannot be told"


def claims_table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of the claims that the predictions can test, or "" if there are none."""
    lines = []
    for claim in CLAIMS:
        ours = [row for row in rows if row["setting"] == claim.setting]
        others = [row for row in rows if row["setting"] == claim.other]
        found = compare(ours, others)
        if found is None:
            continue
        value, low, high = found
        said = verdict(low, high, equal=claim.equal, pages=len(shared_pages(ours, others)))
        compared = f"{claim.setting} less {claim.other}"
        lines.append(f"| {claim.text} | {compared} | {value:+.2f} ({low:+.2f} to {high:+.2f}) | {said} |")
    if not lines:
        return ""
    return "\n".join(["| claim | accuracy of | difference (95%) | here |", "| --- | --- | --- | --- |", *lines])
