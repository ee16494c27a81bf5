"""MME: two yes/no questions per image in fourteen categories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Target,
    grouped,
    in_units,
)
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER
from slime_vlm.evaluation.metrics.yes_no import (
    MME_COGNITION,
    MME_HALLUCINATION,
    MME_PERCEPTION,
    mme_category,
    read_mme,
)


def _ask(record: Record, index: int) -> Question:
    question = str(record["question"]).replace(" Please answer yes or no.", "")
    pair = str(record["question_id"])
    target = {"answer": str(record["answer"]).strip().lower(), "category": str(record["category"]), "pair": pair}
    # Both questions of an image share their id.
    return Question(f"{pair}#{index}", question + SHORT_ANSWER, (record["image"],), target)


def _score(prediction: str, target: Target) -> float:
    return float(read_mme(prediction) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    categories: dict[str, float] = {}
    for name, group in grouped(rows, "category").items():
        pairs: dict[str, list[float]] = defaultdict(list)
        for row in group:
            pairs[row.target["pair"]].append(row.score or 0.0)
        crowded = next((pair for pair, scores in pairs.items() if len(scores) > 2), None)
        if crowded is not None:
            raise DataError(
                f"MME: {len(pairs[crowded])} questions have the id {crowded}, expected two; repair the data"
            )
        # `--limit` may have cut a pair in half. Such a pair does not count.
        whole = {pair: scores for pair, scores in pairs.items() if len(scores) == 2}
        if whole:
            categories[name.lower()] = mme_category(whole)
    sums = {
        "perception": _sum(categories, MME_PERCEPTION),
        "cognition": _sum(categories, MME_COGNITION),
        "hallucination": _sum(categories, MME_HALLUCINATION),
    }
    return {**sums, **dict(sorted(categories.items()))}


def _sum(categories: Mapping[str, float], names: Sequence[str]) -> float:
    return sum(categories.get(name, 0.0) for name in names)


BENCHMARK = Benchmark(
    name="mme",
    title="MME",
    source=Source("lmms-lab-encoder/MME", "test"),
    licence="academic use only*",
    metric="points: perception of 2000, cognition of 800, hallucination subset of 800",
    fields=("question_id", "question", "answer", "category", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="perception",
    full_marks=2000.0,
    units=in_units(lambda row: row.target["pair"]),
)
