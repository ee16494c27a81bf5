"""ScienceQA-IMG: school science with an image, multiple choice."""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Scored, Source, Target, percent
from slime_vlm.evaluation.benchmarks.prompts import LETTER, is_missing, option_lines
from slime_vlm.evaluation.metrics.choices import LETTERS, scienceqa_letter


def _ask(record: Record, index: int) -> Question:
    choices = list(record["choices"])
    context = "" if is_missing(record.get("hint")) else f"Context: {record['hint']}\n"
    prompt = f"{context}{record['question']}\n{option_lines(choices)}{LETTER}"
    image = record.get("image")
    target = {"answer": LETTERS[int(record["answer"])], "options": len(choices), "image": not is_missing(image)}
    return Question(str(index), prompt, (image,) if target["image"] else (), target)


def _score(prediction: str, target: Target) -> float:
    return float(scienceqa_letter(prediction, LETTERS[: target["options"]]) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    unread = [scienceqa_letter(row.prediction, LETTERS[: row.target["options"]]) is None for row in rows]
    return {
        "accuracy": percent(row.score for row in rows if row.target["image"]),
        "unreadable": percent(float(value) for value in unread),
    }


BENCHMARK = Benchmark(
    name="scienceqa",
    title="ScienceQA-IMG",
    source=Source("lmms-lab-encoder/ScienceQA", "test", config="ScienceQA-IMG"),
    licence="CC BY-NC-SA 4.0*",
    metric="accuracy of the letter, questions with an image",
    fields=("question", "choices", "answer"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="accuracy",
)
