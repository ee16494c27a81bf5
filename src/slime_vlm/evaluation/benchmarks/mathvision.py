"""MATH-Vision: competition mathematics with figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Target,
    accuracy,
    by_group,
)
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER, is_missing
from slime_vlm.evaluation.metrics.choices import LETTERS
from slime_vlm.evaluation.metrics.mathvision import mathvision_match


def _ask(record: Record, index: int) -> Question:
    options = [str(option) for option in record.get("options") or []]
    # Options that are nothing but their letters stand in the figure. The official prompt leaves them out.
    shown = [] if "".join(options) == LETTERS[: len(options)] else options
    lines = "".join(f"({letter}) {option}\n" for letter, option in zip(LETTERS, shown, strict=False))
    target: Target = {
        "answer": str(record["answer"]),
        "options": dict(zip(LETTERS, options, strict=False)),
        "subject": str(record.get("subject", "unknown")),
        "level": f"level {record.get('level', 'unknown')}",
    }
    # Markers such as <image1> stay in the text.
    prompt = f"{record['question']}\n{lines}{SHORT_ANSWER}"
    # The hub's copy holds the image itself, the original release only its path.
    image = record["image"] if is_missing(record.get("decoded_image")) else record["decoded_image"]
    return Question(str(record["id"]), prompt, (image,), target)


def _score(prediction: str, target: Target) -> float:
    return mathvision_match(prediction, target["answer"], target["options"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    both = [replace(row, target={"pair": f"{row.target['subject']}, {row.target['level']}"}) for row in rows]
    return accuracy("level", "subject")(rows) | by_group(both, "pair")


BENCHMARK = Benchmark(
    name="mathvision",
    title="MATH-Vision (testmini)",
    source=Source("MathLLMs/MathVision", "testmini"),
    licence="MIT*",
    metric="accuracy of letter, text or value",
    fields=("id", "question", "answer", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="accuracy",
    note="Only testmini is a fair test of models trained on SMR, which contains other items of MATH-Vision.",
)

FULL = replace(
    BENCHMARK,
    name="mathvision_test",
    title="MATH-Vision (test)",
    source=Source("MathLLMs/MathVision", "test"),
    note="CONTAMINATED for models trained on SMR (SliME's stage 3), which has items of this split: use mathvision.",
)
