"""ChartQA: numbers and words read from charts."""

from __future__ import annotations

from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Source, accuracy, by_rules
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER
from slime_vlm.evaluation.metrics.relaxed import relaxed_accuracy, relaxed_accuracy_slime


def _ask(record: Record, index: int) -> Question:
    target = {"answer": str(record["answer"]), "type": str(record["type"])}
    return Question(str(index), record["question"] + SHORT_ANSWER, (record["image"],), target)


_BENCHMARK = Benchmark(
    name="chartqa",
    title="ChartQA",
    source=Source("lmms-lab-encoder/ChartQA", "test"),
    licence="GPL-3.0*",
    metric="relaxed accuracy",
    fields=("question", "answer", "type", "image"),
    ask=_ask,
    score=lambda prediction, target: relaxed_accuracy(prediction, target["answer"]),
    summarise=accuracy("type"),
    main="accuracy",
    max_new_tokens=100,
    note="SliME's own script divides the error by the prediction. Here it is by the answer, as ChartQA defines it.",
)

BENCHMARK = by_rules(
    "lmms-eval",
    {
        "lmms-eval": _BENCHMARK,
        "slime-script": replace(
            _BENCHMARK, score=lambda prediction, target: relaxed_accuracy_slime(prediction, target["answer"])
        ),
    },
)
