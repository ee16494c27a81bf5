"""ScienceQA-IMG: school science with an image, multiple choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Target,
    by_rules,
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import LETTER, is_missing, option_lines
from slime_vlm.evaluation.metrics.choices import LETTERS, scienceqa_letter, scienceqa_letter_lmms_eval


def _ask(record: Record, index: int) -> Question:
    choices = list(record["choices"])
    context = "" if is_missing(record.get("hint")) else f"Context: {record['hint']}\n"
    prompt = f"{context}{record['question']}\n{option_lines(choices)}{LETTER}"
    image = record.get("image")
    target = {"answer": LETTERS[int(record["answer"])], "options": len(choices), "image": not is_missing(image)}
    return Question(str(index), prompt, (image,) if target["image"] else (), target)


def _benchmark(read: Callable[[str, str], str | None]) -> Benchmark:
    """Return the benchmark with a rule that reads letters."""

    def letter(prediction: str, target: Target) -> str | None:
        return read(prediction, LETTERS[: target["options"]])

    def summarise(rows: Sequence[Scored]) -> dict[str, float]:
        return {
            "accuracy": percent(row.score for row in rows if row.target["image"]),
            "unreadable": percent(float(letter(row.prediction, row.target) is None) for row in rows),
        }

    return Benchmark(
        name="scienceqa",
        title="ScienceQA-IMG",
        source=Source("lmms-lab-encoder/ScienceQA", "test", config="ScienceQA-IMG"),
        licence="CC BY-NC-SA 4.0*",
        metric="accuracy of the letter, questions with an image",
        fields=("question", "choices", "answer"),
        ask=_ask,
        score=lambda prediction, target: float(letter(prediction, target) == target["answer"]),
        summarise=summarise,
        main="accuracy",
    )


BENCHMARK = by_rules(
    "LLaVA", {"LLaVA": _benchmark(scienceqa_letter), "lmms-eval": _benchmark(scienceqa_letter_lmms_eval)}
)
