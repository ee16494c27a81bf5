"""GQA: compositional questions about photographs. The images are in a table of their own."""

from __future__ import annotations

from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Joined, Question, Record, Source, accuracy, by_rules
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER
from slime_vlm.evaluation.metrics.exact import gqa_match, gqa_match_lmms_eval


def _ask(record: Record, index: int) -> Question:
    target = {"answer": str(record["answer"])}
    return Question(str(record["id"]), record["question"] + SHORT_ANSWER, (record["image"],), target)


_BENCHMARK = Benchmark(
    name="gqa",
    title="GQA",
    source=Source(
        "lmms-lab-encoder/GQA",
        "testdev",
        config="testdev_balanced_instructions",
        joined=Joined("testdev_balanced_images", key="imageId", other="id"),
    ),
    licence="CC BY 4.0*",
    metric="exact match without case and final periods",
    fields=("id", "question", "answer", "image"),
    ask=_ask,
    score=lambda prediction, target: gqa_match(prediction, target["answer"]),
    summarise=accuracy(),
    main="accuracy",
    max_new_tokens=16,
)

BENCHMARK = by_rules(
    "LLaVA",
    {
        "LLaVA": _BENCHMARK,
        "lmms-eval": replace(
            _BENCHMARK, score=lambda prediction, target: gqa_match_lmms_eval(prediction, target["answer"])
        ),
    },
)
