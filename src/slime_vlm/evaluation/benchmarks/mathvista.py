"""MathVista: mathematics in images, answers as numbers, texts or choices."""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Judged,
    Question,
    Record,
    Scored,
    Source,
    Target,
    marks_mean,
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import is_missing
from slime_vlm.evaluation.metrics.mathvista import extract_by_rule, normalise_extraction

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
        "task": str(metadata.get("task", "")),
        "skills": list(metadata.get("skills") or []),
    }
    # The hub's copy holds the image itself, the original release only its path.
    image = record["image"] if is_missing(record.get("decoded_image")) else record["decoded_image"]
    return Question(str(record["pid"]), record["query"], (image,), target)


def _compare(extraction: str, target: Target) -> float:
    form = [target[name] for name in ("choices", "question_type", "answer_type", "precision")]
    given = normalise_extraction(extraction, *form)
    return float(given is not None and given.strip() == target["answer"].strip())


def _extract(prediction: str, target: Target) -> str | None:
    return extract_by_rule(prediction, target["choices"], target["answer_type"])


def _score(prediction: str, target: Target) -> float:
    extraction = _extract(prediction, target)
    return 0.0 if extraction is None else _compare(extraction, target)


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    result = {"accuracy by rule": percent(row.score for row in rows)}
    result["not extracted"] = percent(float(_extract(row.prediction, row.target) is None) for row in rows)
    return {**result, **_groups(rows, [row.score or 0.0 for row in rows])}


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    return {"accuracy": marks_mean(rows), **_groups(rows, [row.marks[0] if row.marks else 0.0 for row in rows])}


def _groups(rows: Sequence[Scored], scores: Sequence[float]) -> dict[str, float]:
    pairs = list(zip(rows, scores, strict=True))
    tasks = sorted({row.target["task"] for row in rows} - {""})
    skills = sorted({skill for row in rows for skill in row.target["skills"]})
    by_task = {task: percent(score for row, score in pairs if row.target["task"] == task) for task in tasks}
    return by_task | {
        skill: percent(score for row, score in pairs if skill in row.target["skills"]) for skill in skills
    }


def _request(prediction: str, target: Target, template: str) -> str | None:
    if _extract(prediction, target) is not None:
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
        lambda reply, prediction, target: [_compare(reply, target)],
        _summarise_judged,
        main="accuracy",
        template=_TEMPLATE,
    ),
    note="For the official number, a language model extracts the answers that no rule can extract.",
)
