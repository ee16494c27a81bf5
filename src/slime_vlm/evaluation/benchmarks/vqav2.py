"""VQAv2: open questions about photographs, with the answers of ten annotators each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Submission,
    Target,
    by_group,
    by_rules,
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER, texts
from slime_vlm.evaluation.metrics.vqa import normalise_answer, submitted_vqa_accuracy, vqa_accuracy_lmms_eval


def _ask(record: Record, index: int) -> Question:
    number = int(record["question_id"])
    target: Target = {"question_id": number, "answers": texts(record.get("answers"))}
    if record.get("answer_type"):
        target["answer type"] = str(record["answer_type"])
    return Question(str(number), record["question"] + SHORT_ANSWER, (record["image"],), target)


def _scorer(rule: Callable[[str, Sequence[str]], float]) -> Callable[[str, Target], float | None]:
    def score(prediction: str, target: Target) -> float | None:
        return rule(prediction, target["answers"]) if target["answers"] else None

    return score


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    return {"accuracy": percent(row.score for row in rows), **by_group(rows, "answer type", "answer type ")}


_BENCHMARK = Benchmark(
    name="vqav2",
    title="VQAv2",
    source=Source("lmms-lab-encoder/VQAv2", "validation", test_split="test"),
    licence="CC BY 4.0*",
    metric="VQA accuracy, original rule",
    fields=("question_id", "question", "image"),
    ask=_ask,
    score=_scorer(submitted_vqa_accuracy),
    summarise=_summarise,
    main="accuracy",
    max_new_tokens=16,
    submission=Submission(
        "submission.json",
        lambda prediction, target: {"question_id": target["question_id"], "answer": normalise_answer(prediction)},
        every=True,
    ),
    note="The paper reports test-dev, which only the server scores. vqav2:test writes the file for it.",
)

BENCHMARK = by_rules(
    "authors", {"authors": _BENCHMARK, "lmms-eval": replace(_BENCHMARK, score=_scorer(vqa_accuracy_lmms_eval))}
)
