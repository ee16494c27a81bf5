"""AMBER (discriminative part): yes/no questions about existence, attributes and relations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Joined, Question, Record, Scored, Source, Target
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER
from slime_vlm.evaluation.metrics.yes_no import amber_scores, read_amber

ANNOTATIONS = Joined("annotations", key="id", other="id")
"""The table with the truths of both parts."""

_KINDS = ("state", "number", "action")
"""The three kinds of questions about attributes."""


def _asker(suffix: str = "") -> Callable[[Record, int], Question]:
    def ask(record: Record, index: int) -> Question:
        # The repository has queries and annotations, the mirror on the hub a single table.
        query = record.get("query", record.get("question"))
        truth = str(record.get("truth", record.get("answer"))).strip().lower()
        if truth not in {"yes", "no"}:
            raise DataError(f"AMBER: record {index} has the truth {truth!r:.40}, expected yes or no")
        kind = str(record.get("type", record.get("category", "")))
        target = {"answer": truth, "part": _part(kind), "kind": next((one for one in _KINDS if one in kind), "")}
        name = str(record.get("id", record.get("index", index)))
        return Question(name, str(query) + suffix, (record["image"],), target)

    return ask


def _part(kind: str) -> str:
    for part, words in {"existence": ("hallucination", "existence"), "attribute": ("attribute", *_KINDS)}.items():
        if any(word in kind for word in words):
            return part
    return "relation"


def _score(prediction: str, target: Target) -> float:
    return float(read_amber(prediction) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    result = amber_scores(_pairs(rows))
    groups = {part: [row for row in rows if row.target["part"] == part] for part in ("existence", "attribute")}
    groups |= {kind: [row for row in rows if row.target.get("kind") == kind] for kind in _KINDS}
    groups["relation"] = [row for row in rows if row.target["part"] == "relation"]
    for name, group in groups.items():
        if group:
            counters = len(_KINDS) if name == "attribute" else 1
            scores = amber_scores(_pairs(group), existence=name == "existence", counters=counters)
            result |= {f"{name} {metric}": value for metric, value in scores.items()}
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
    ask=_asker(),
    score=_score,
    summarise=_summarise,
    main="accuracy",
    max_new_tokens=16,
    note="Questions as they come, as in AMBER's and SliME's scripts. Only the answers Yes and No count.",
)

WITH_SUFFIX = replace(
    BENCHMARK,
    name="amber_short",
    title="AMBER (discriminative), short answers",
    ask=_asker(SHORT_ANSWER),
    note="With the instruction of the SliME paper's table 6 for short answers, which SliME's script does not send.",
)
