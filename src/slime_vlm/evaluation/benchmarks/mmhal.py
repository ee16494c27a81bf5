"""MMHal-Bench: whether long answers hallucinate, rated by a language model."""

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
    percent,
)
from slime_vlm.evaluation.metrics.judge_reply import stated_rating

_TYPES = 8
_HALLUCINATED_BELOW = 3
_TEMPLATE = (
    "Rate an answer about a picture from 0 to 6. Without invention: 6 very, 5 somewhat, 4 hardly informative. With "
    "invention: 3 very, 2 somewhat, 1 hardly informative. 0 no information. "
    "Invention is whatever the picture's contents and the right answer do not bear out.\n"
    "The picture holds: {content}\nQuestion: {question}\nRight answer: {answer}\nGiven answer: {prediction}\n"
    "End with one line: Rating: N"
)


def _ask(record: Record, index: int) -> Question:
    target: Target = {
        "question": record["question"],
        "content": ", ".join(map(str, record["image_content"])),
        "answer": record["gt_answer"],
        "type": str(record.get("question_type") or f"type {index % _TYPES}"),
    }
    # `image_path` is relative to the records.
    image = record.get("image") or record["image_path"]
    return Question(str(index), record["question"], (image,), target)


def _rating(row: Scored) -> float:
    return row.marks[0] if row.marks else 0.0


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    ratings = [_rating(row) for row in rows]
    result = {"average rating of 6": percent(ratings) / 100}
    result["hallucination rate"] = percent(float(rating < _HALLUCINATED_BELOW) for rating in ratings)
    return result | {name: percent(map(_rating, group)) / 100 for name, group in sorted(grouped(rows, "type").items())}


def _request(prediction: str, target: Target, template: str) -> str:
    fields = {name: target[name] for name in ("question", "content", "answer")}
    return template.format(prediction=prediction, **fields)


def _read(reply: str, prediction: str, target: Target) -> list[float] | None:
    rating = stated_rating(reply)
    return None if rating is None else [rating]


BENCHMARK = Benchmark(
    name="mmhal",
    title="MMHal-Bench",
    source=Source("Shengcao1006/MMHal-Bench", "test"),
    licence="Apache-2.0",
    metric="a judge's rating of 0 to 6",
    fields=("question", "image_content", "gt_answer"),
    ask=_ask,
    score=lambda prediction, target: None,
    summarise=lambda rows: {},
    main=None,
    max_new_tokens=1024,
    judged=Judged(_request, _read, _summarise_judged, main="average rating of 6", template=_TEMPLATE, full_marks=6.0),
    note="No rule replaces the judge: without one there are predictions but no score.",
)
