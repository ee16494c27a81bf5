"""MathVista: mathematics in images, answers as numbers, texts or choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Judged,
    Question,
    Record,
    Scored,
    Source,
    Target,
    by_group,
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import is_missing
from slime_vlm.evaluation.metrics.mathvista import extract_as_it_is, extract_by_rule, normalise_extraction

# Besides the types of questions and answers, and the skills.
_GROUPS = ("language", "source", "category", "task", "context", "grade")
_TEMPLATE = (
    "{question}\n\nSomebody answered:\n{prediction}\n\n"
    "Write down nothing but the final result of that answer: the number, the text or the option's letter. "
    "Do not solve the problem yourself."
)


def _ask(record: Record, index: int) -> Question:
    metadata = record.get("metadata") or {}
    target: Target = {
        "query": record["query"],
        "choices": [] if is_missing(record.get("choices")) else [str(choice) for choice in record["choices"]],
        "question_type": record["question_type"],
        "answer_type": record["answer_type"],
        "precision": None if is_missing(record.get("precision")) else float(record["precision"]),
        "answer": str(record["answer"]),
        "skills": [str(skill) for skill in _items(metadata.get("skills"))],
    }
    target |= {key: str(metadata[key]) for key in _GROUPS if metadata.get(key)}
    # The hub's copy holds the image itself, the original release only its path.
    image = record["image"] if is_missing(record.get("decoded_image")) else record["decoded_image"]
    return Question(str(record["pid"]), record["query"], (image,), target)


def _items(value: Any) -> list[Any]:
    """Return the items of a cell, also of an array."""
    return [] if value is None else list(value)


def _compare(extraction: str, target: Target) -> float:
    form = [target[name] for name in ("choices", "question_type", "answer_type", "precision")]
    return float(normalise_extraction(extraction, *form) == target["answer"])


def _score(prediction: str, target: Target) -> float:
    extraction = extract_by_rule(prediction, target["choices"], target["answer_type"])
    return 0.0 if extraction is None else _compare(extraction, target)


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    targets = [(row.prediction, row.target) for row in rows]
    missing = [extract_by_rule(text, target["choices"], target["answer_type"]) is None for text, target in targets]
    return {
        "accuracy by rule": percent(row.score for row in rows),
        "not extracted": percent(map(float, missing)),
        **_groups(rows),
    }


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    marked = [replace(row, score=row.marks[0] if row.marks else 0.0) for row in rows]
    return {"accuracy": percent(row.score for row in marked), **_groups(marked)}


def _groups(rows: Sequence[Scored]) -> dict[str, float]:
    """Return the accuracy by every grouping of the official script. A question counts for each of its skills."""
    result: dict[str, float] = {}
    for key in ("question_type", "answer_type", *_GROUPS):
        result |= by_group(rows, key, f"{key}: ")
    for skill in sorted({skill for row in rows for skill in row.target["skills"]}):
        result[f"skill: {skill}"] = percent(row.score for row in rows if skill in row.target["skills"])
    return result


def _request(prediction: str, target: Target, template: str) -> str | None:
    # The official script asks whenever the answer is not already the extraction.
    if extract_as_it_is(prediction, target["choices"], target["answer_type"]) is not None:
        return None
    return template.format(question=target["query"], prediction=prediction)


BENCHMARK = Benchmark(
    name="mathvista",
    title="MathVista",
    source=Source("AI4Math/MathVista", "testmini"),
    licence="CC BY-SA 4.0",
    metric="accuracy of the extracted answer",
    fields=("pid", "query", "question_type", "answer_type", "answer", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="accuracy by rule",
    judged=Judged(
        _request,
        lambda reply, prediction, target: [_compare(reply, target)] if reply.strip() else None,
        _summarise_judged,
        main="accuracy",
        template=_TEMPLATE,
    ),
    note="For the official number, a language model extracts the answers that no rule can extract.",
)
