"""LLaVA-Bench (In-the-Wild): long answers, graded against a reference by a language model."""

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
    grouped,
)
from slime_vlm.evaluation.metrics.judge_reply import two_marks

_TEMPLATE = (
    "A picture is described like this:\n{caption}\n\nQuestion: {question}\n\n"
    "Assistant 1 answered:\n{reference}\n\nAssistant 2 answered:\n{prediction}\n\n"
    "Rate both for helpfulness, relevance, accuracy and detail from 1 to 10. Write the two numbers, of assistant 1 and "
    "of assistant 2, on the first line with a blank between them; explain below if you like."
)


def _ask(record: Record, index: int) -> Question:
    caption = record["caption"]
    target: Target = {
        "question": record["question"],
        "caption": caption if isinstance(caption, str) else "\n".join(caption),
        "reference": record["gpt_answer"],
        "category": str(record["category"]),
    }
    return Question(str(record["question_id"]), record["question"], (record["image"],), target)


def _relative(rows: Sequence[Scored]) -> float:
    marks = [row.marks for row in rows if row.marks]
    reference = sum(mark[0] for mark in marks)
    return 100 * sum(mark[1] for mark in marks) / reference if reference else 0.0


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    by_category = {name: _relative(group) for name, group in sorted(grouped(rows, "category").items())}
    return {"relative score": _relative(rows), **by_category}


def _request(prediction: str, target: Target, template: str) -> str:
    fields = {name: target[name] for name in ("question", "caption", "reference")}
    return template.format(prediction=prediction, **fields)


def _read(reply: str, prediction: str, target: Target) -> list[float] | None:
    marks = two_marks(reply)
    return marks if marks is not None and all(1 <= mark <= 10 for mark in marks) else None


BENCHMARK = Benchmark(
    name="llava_bench",
    title="LLaVA-Bench (In-the-Wild)",
    source=Source("lmms-lab-encoder/llava-bench-in-the-wild", "train"),
    licence="Apache-2.0*",
    metric="a judge's grade relative to the reference's",
    fields=("question_id", "question", "caption", "gpt_answer", "category", "image"),
    ask=_ask,
    score=lambda prediction, target: None,
    summarise=lambda rows: {},
    main=None,
    max_new_tokens=1024,
    judged=Judged(_request, _read, _summarise_judged, main="relative score", template=_TEMPLATE),
    note="No rule replaces the judge: without one there are predictions but no score.",
)
