"""OCRBench: a thousand questions about text of every kind. The score is the number of right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Scored, Source, Target, by_rules
from slime_vlm.evaluation.benchmarks.prompts import texts
from slime_vlm.evaluation.metrics.containing import ocr_match

_FORMULAS = "HME100k"


def _ask(record: Record, index: int) -> Question:
    target: Target = {
        "answers": texts(record["answer"]),
        "formula": record["dataset"] == _FORMULAS,
        "type": str(record["question_type"]),
    }
    return Question(str(index), record["question"], (record["image"],), target)


def _score(prediction: str, target: Target) -> float:
    return ocr_match(prediction, target["answers"], formula=target["formula"])


def _score_folded(prediction: str, target: Target) -> float:
    return ocr_match(prediction, target["answers"], formula=target["formula"], fold=True)


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    kinds = sorted({row.target["type"] for row in rows})
    points = {kind: sum(row.score or 0.0 for row in rows if row.target["type"] == kind) for kind in kinds}
    return {"points": sum(points.values()), **points}


_BENCHMARK = Benchmark(
    name="ocrbench",
    title="OCRBench",
    source=Source("echo840/OCRBench", "test"),
    licence="licences of its 29 sources*",
    metric="points of 1000: an accepted answer is part of the prediction",
    fields=("dataset", "question", "question_type", "answer", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="points",
    full_marks=1000.0,
)

BENCHMARK = by_rules("authors", {"authors": _BENCHMARK, "lmms-eval": replace(_BENCHMARK, score=_score_folded)})
