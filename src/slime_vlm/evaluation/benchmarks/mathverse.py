"""MathVerse: the same problems in versions that move more and more of the text into the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Judged,
    Question,
    Record,
    Scored,
    Source,
    Target,
    by_group,
    in_units,
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import is_missing
from slime_vlm.evaluation.metrics.choices import LETTERS
from slime_vlm.evaluation.metrics.judge_reply import stated_mark
from slime_vlm.evaluation.metrics.mathverse import stated_option, stated_result
from slime_vlm.evaluation.metrics.mathvision import same_value

_TEXT_ONLY = "Text Only"
_LAST_WORDS = 30
_TEMPLATE = (
    "Question: {question}\nRight answer: {answer}\nGiven answer: {prediction}\n"
    "Does the given answer come to the right one? Reply 1 for yes or 0 for no, and nothing else."
)


def _ask(record: Record, index: int) -> Question:
    target: Target = {
        "question": str(record.get("question_for_eval") or record["question"]),
        "answer": str(record["answer"]).strip(),
        "choice": record["question_type"] == "multi-choice",
        "version": str(record["problem_version"]),
        "problem": str(record.get("problem_index", record["sample_index"])),
    }
    metadata = record.get("metadata") or {}
    if metadata.get("subject"):
        target |= {
            "subject": str(metadata["subject"]),
            "subfield": f"{metadata['subject']}: {metadata.get('subfield')}",
        }
    image = record.get("image")
    images = () if is_missing(image) else (image,)
    return Question(str(record["sample_index"]), record["query_wo"], images, target)


def _score(prediction: str, target: Target) -> float:
    if target["choice"]:
        return float(stated_option(prediction, LETTERS) == target["answer"])
    return float(same_value(target["answer"], stated_result(prediction)))


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    return _by_version_and_subject(rows, "accuracy by rule")


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    return _by_version_and_subject([replace(row, score=row.marks[0] if row.marks else 0.0) for row in rows], "accuracy")


def _by_version_and_subject(rows: Sequence[Scored], name: str) -> dict[str, float]:
    shown = _with_figure(rows)
    result = {name: percent(row.score for row in shown)} | by_group(rows, "version")
    return result | by_group(shown, "subject") | by_group(shown, "subfield")


def _with_figure(rows: Sequence[Scored]) -> list[Scored]:
    """Return the rows of the five versions that form the overall score. The text-only version is an ablation."""
    return [row for row in rows if row.target["version"] != _TEXT_ONLY]


def _request(prediction: str, target: Target, template: str) -> str:
    shown = " ".join(prediction.split()[-_LAST_WORDS:])
    return template.format(question=target["question"], answer=target["answer"], prediction=shown)


def _read(reply: str, prediction: str, target: Target) -> list[float] | None:
    mark = stated_mark(reply)
    return [mark] if mark in {0.0, 1.0} else None


BENCHMARK = Benchmark(
    name="mathverse",
    title="MathVerse",
    source=Source("AI4Math/MathVerse", "testmini", config="testmini"),
    licence="MIT*",
    metric="accuracy over five versions, direct answers",
    fields=("sample_index", "query_wo", "question", "question_type", "problem_version", "answer"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="accuracy by rule",
    # A problem occurs in several versions.
    units=in_units(lambda row: row.target.get("problem", row.id)),
    judged=Judged(_request, _read, _summarise_judged, main="accuracy", template=_TEMPLATE),
    note="Upstream asks a language model twice, to extract and to compare. Here one request does both.",
)
