"""Give the right answer to a fixture's question, in words that its benchmark's scorer accepts."""

from __future__ import annotations

from slime_vlm.evaluation.benchmarks.benchmark import Target


def right_answer(target: Target) -> str:
    """Return the most frequent of several answers, else the only one."""
    if target.get("answers"):
        return max(target["answers"], key=target["answers"].count)
    if "truth" in target:
        return ", ".join(target["truth"])
    answer = str(target.get("answer", target.get("reference")))
    return answer.replace("<AND>", "and").split("<OR>")[0].strip()
