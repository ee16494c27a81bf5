"""MMStar: 1,500 questions with four options that cannot be answered without their image."""

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
    by_group,
    by_rules,
    percent,
)
from slime_vlm.evaluation.metrics.choices import mmstar_letter
from slime_vlm.evaluation.metrics.ranked_letter import ranked_letter

# lmms-eval's instruction has no period at the end. The authors' script leaves the wording to each model.
_INSTRUCTION = "\nAnswer with the option's letter from the given choices directly"


def _ask(record: Record, index: int) -> Question:
    target: Target = {
        "answer": str(record["answer"]).strip(),
        "category": str(record["category"]),
        "L2": f"{record['category']} ({record['l2_category']})",
    }
    # The options stand in the question.
    return Question(str(record["index"]), record["question"].strip() + _INSTRUCTION, (record["image"],), target)


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    return {"accuracy": percent(row.score for row in rows), **by_group(rows, "category"), **by_group(rows, "L2")}


_BENCHMARK = Benchmark(
    name="mmstar",
    title="MMStar",
    source=Source("Lin-Chen/MMStar", "val"),
    licence="academic research only*",
    metric="accuracy of the letter",
    fields=("index", "question", "answer", "category", "l2_category", "image"),
    ask=_ask,
    score=lambda prediction, target: float(mmstar_letter(prediction) == target["answer"]),
    summarise=_summarise,
    main="accuracy",
    max_new_tokens=16,
)

BENCHMARK = by_rules(
    "authors",
    {
        "authors": _BENCHMARK,
        "lmms-eval": replace(
            _BENCHMARK, score=lambda prediction, target: float(ranked_letter(prediction) == target["answer"])
        ),
    },
)
