"""AMBER (discriminative part): yes/no questions about existence, attributes and relations."""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Joined, Question, Record, Scored, Source, Target
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER
from slime_vlm.evaluation.metrics.yes_no import amber_scores, read_amber

ANNOTATIONS = Joined("annotations", key="id", other="id")
"""The table with the truths of both parts."""


def _ask(record: Record, index: int) -> Question:
    # The repository has queries and annotations, the mirror on the hub a single table.
    query = record.get("query", record.get("question"))
    truth = str(record.get("truth", record.get("answer"))).strip().lower()
    if truth not in {"yes", "no"}:
        raise DataError(f"AMBER: record {index} has the truth {truth!r:.40}, expected yes or no: query_discriminative")
    target = {"answer": truth, "part": _part(str(record.get("type", record.get("category", ""))))}
    name = str(record.get("id", record.get("index", index)))
    return Question(name, str(query) + SHORT_ANSWER, (record["image"],), target)


def _part(kind: str) -> str:
    for part, words in {"existence": ("hallucination", "existence"), "attribute": ("attribute",)}.items():
        if any(word in kind for word in words):
            return part
    return "relation"


def _score(prediction: str, target: Target) -> float:
    return float(read_amber(prediction) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    result = amber_scores(_pairs(rows))
    for part in ("existence", "attribute", "relation"):
        members = [row for row in rows if row.target["part"] == part]
        if members:
            scores = amber_scores(_pairs(members), existence=part == "existence")
            result |= {f"{part} {name}": value for name, value in scores.items()}
    return result


def _pairs(rows: Sequence[Scored]) -> list[tuple[str, str]]:
    return [(read_amber(row.prediction), row.target["answer"]) for row in rows]


BENCHMARK = Benchmark(
    name="amber",
    title="AMBER (discriminative)",
    source=Source("yifanzhang114/AMBER_base64", "train", joined=ANNOTATIONS),
    licence="Apache-2.0*",
    metric="accuracy; F1 with no as the positive class",
    fields=("image",),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="accuracy",
    max_new_tokens=16,
    note="The generative part is a separate task, amber_generative, whose numbers are not the official ones.",
)
