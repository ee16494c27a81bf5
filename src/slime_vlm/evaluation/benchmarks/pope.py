"""POPE: whether an object is in a photograph. Half of the answers are no."""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Scored, Source, Target, grouped
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER
from slime_vlm.evaluation.metrics.yes_no import Confusion, read_pope


def _ask(record: Record, index: int) -> Question:
    category = str(record["category"])
    target = {"answer": str(record["answer"]).strip().lower(), "category": category}
    # The three categories use the same question ids.
    name = f"{category}-{record['question_id']}"
    return Question(name, record["question"] + SHORT_ANSWER, (record["image"],), target)


def _score(prediction: str, target: Target) -> float:
    return float(read_pope(prediction) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    groups = {name: _confusion(group) for name, group in sorted(grouped(rows, "category").items())}
    pooled = _confusion(rows)
    result = {
        "f1": 100 * sum(counts.f1 for counts in groups.values()) / max(1, len(groups)),
        "f1 pooled": 100 * pooled.f1,
        "accuracy": 100 * pooled.accuracy,
        "precision": 100 * pooled.precision,
        "recall": 100 * pooled.recall,
        "yes ratio": 100 * pooled.yes_ratio,
    }
    for name, counts in groups.items():
        result |= {f"{name} f1": 100 * counts.f1, f"{name} accuracy": 100 * counts.accuracy}
        result[f"{name} yes ratio"] = 100 * counts.yes_ratio
    return result


def _confusion(rows: Sequence[Scored]) -> Confusion:
    return Confusion.count((read_pope(row.prediction), row.target["answer"]) for row in rows)


BENCHMARK = Benchmark(
    name="pope",
    title="POPE",
    source=Source("lmms-lab-encoder/POPE", "test", config="default"),
    licence="MIT*",
    metric="mean F1 of the three categories",
    fields=("question_id", "question", "answer", "image", "category"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="f1",
    max_new_tokens=64,
)
