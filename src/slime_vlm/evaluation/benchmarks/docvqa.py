"""DocVQA and InfographicVQA: answers copied from documents and infographics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Source,
    Submission,
    Target,
    accuracy,
    by_rules,
)
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER, texts
from slime_vlm.evaluation.metrics.anls import anls, anls_llava


def _ask(record: Record, index: int) -> Question:
    name = str(record["questionId"])
    target = {"questionId": int(name), "answers": texts(record.get("answers"))}
    return Question(name, record["question"] + SHORT_ANSWER, (record["image"],), target)


def _score(prediction: str, target: Target) -> float | None:
    return anls(prediction, target["answers"]) if target["answers"] else None


def _score_llava(prediction: str, target: Target) -> float | None:
    return anls_llava(prediction, target["answers"]) if target["answers"] else None


def _entry(prediction: str, target: Target) -> dict[str, Any]:
    return {"questionId": target["questionId"], "answer": prediction}


def _summarise(rows: Any) -> dict[str, float]:
    return {"anls": accuracy()(rows)["accuracy"]}


_BENCHMARK = Benchmark(
    name="docvqa",
    title="DocVQA",
    source=Source("lmms-lab-encoder/DocVQA", "validation", config="DocVQA", test_split="test"),
    licence="terms of the RRC portal*",
    metric="ANLS",
    fields=("questionId", "question", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="anls",
    max_new_tokens=32,
    submission=Submission("submission.json", _entry),
)

_INFOGRAPHICS = replace(
    _BENCHMARK, name="infovqa", title="InfoVQA", source=replace(_BENCHMARK.source, config="InfographicVQA")
)

BENCHMARK, INFOGRAPHICS = (
    by_rules("RRC", {"RRC": one, "LLaVA": replace(one, score=_score_llava)}) for one in (_BENCHMARK, _INFOGRAPHICS)
)
