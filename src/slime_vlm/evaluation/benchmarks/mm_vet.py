"""MM-Vet: open questions that need several abilities at once, graded by a language model."""

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
from slime_vlm.evaluation.metrics.containing import marked_match
from slime_vlm.evaluation.metrics.judge_reply import stated_mark

_TEMPLATE = (
    "Grade an answer from 0.0 (all wrong) to 1.0 (all right) in steps of 0.1. In the right answer <AND> joins parts "
    "that are all needed, <OR> separates parts of which one is enough.\n"
    "Question: {question}\nRight answer: {answer}\nGiven answer: {prediction}\n"
    "Reply with the grade alone."
)


def _ask(record: Record, index: int) -> Question:
    answer = str(record["answer"]).replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    abilities = sorted(part.strip() for part in str(record["capability"]).split(",") if part.strip())
    target: Target = {"question": record["question"], "answer": answer, "abilities": abilities}
    return Question(str(record["question_id"]), record["question"], (record["image"],), target)


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    result = {"score": marks_mean(rows)}
    for ability in sorted({ability for row in rows for ability in row.target["abilities"]}):
        result[ability] = marks_mean([row for row in rows if ability in row.target["abilities"]])
    for combination in sorted({", ".join(row.target["abilities"]) for row in rows}):
        members = [row for row in rows if ", ".join(row.target["abilities"]) == combination]
        result[f"exactly {combination}"] = marks_mean(members)
    return result


def _request(prediction: str, target: Target, template: str) -> str:
    return template.format(question=target["question"], answer=target["answer"], prediction=prediction)


def _read(reply: str, prediction: str, target: Target) -> list[float] | None:
    mark = stated_mark(reply)
    return [mark] if mark is not None and 0 <= mark <= 1 else None


BENCHMARK = Benchmark(
    name="mm_vet",
    title="MM-Vet",
    source=Source("lmms-lab-encoder/MMVet", "test"),
    licence="Apache-2.0*",
    metric="mean grade of a judge",
    fields=("question_id", "question", "answer", "capability", "image"),
    ask=_ask,
    score=lambda prediction, target: marked_match(prediction, target["answer"]),
    summarise=lambda rows: {"key phrases found (no judge)": percent(row.score for row in rows)},
    main=None,
    max_new_tokens=512,
    judged=Judged(_request, _read, _summarise_judged, main="score", template=_TEMPLATE),
    note="Scores depend on the judge and its prompt. The official judge is GPT-4 with a table of seven examples.",
)
