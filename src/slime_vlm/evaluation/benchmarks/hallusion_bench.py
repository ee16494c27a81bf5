"""HallusionBench: yes/no questions about figures and edited copies of them, to be answered consistently."""

from __future__ import annotations

from collections import defaultdict
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
    in_units,
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import is_missing
from slime_vlm.evaluation.metrics.judge_reply import stated_word
from slime_vlm.evaluation.metrics.yes_no import read_yes_no

_TEMPLATE = (
    "Question: {question}\nRight answer: {answer}\nGiven answer: {prediction}\n"
    "Reply with one word: correct if the given answer agrees with the right one, incorrect if it contradicts it, "
    "unclear if it does neither."
)


def _ask(record: Record, index: int) -> Question:
    kind = f"{record['category']}_{record['subcategory']}_{record['set_id']}"
    target: Target = {
        "question": record["question"],
        "answer": "yes" if str(record["gt_answer"]) == "1" else "no",
        "details": str(record["gt_answer_details"]),
        "category": str(record["category"]),
        "subcategory": str(record["subcategory"]),
        "figure": f"{kind}_{record['figure_id']}",
        "pair": f"{kind}_{record['question_id']}",
        # Without a figure, an honest "unclear" is right.
        "blind": record["category"] == "VS" and str(record["figure_id"]) == "0",
    }
    image = record.get("image")
    name = f"{target['figure']}_{record['question_id']}"
    return Question(name, record["question"], () if is_missing(image) else (image,), target)


def _summarise(rows: Sequence[Scored], suffix: str = " by rule") -> dict[str, float]:
    result = _accuracies(rows, "", suffix)
    for key in ("category", "subcategory"):
        for name in sorted({row.target[key] for row in rows}):
            result |= _accuracies([row for row in rows if row.target[key] == name], f"{name} ", suffix)
    return result


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    return _summarise([replace(row, score=row.marks[0] if row.marks else 0.0) for row in rows], "")


def _accuracies(rows: Sequence[Scored], prefix: str, suffix: str) -> dict[str, float]:
    """Return the accuracy over questions, and the shares of figures and of question pairs with all answers right."""
    seen = [row for row in rows if not row.target["blind"]]
    return {
        f"{prefix}aAcc{suffix}": percent(row.score for row in rows),
        f"{prefix}fAcc{suffix}": _all_right(seen, "figure"),
        f"{prefix}qAcc{suffix}": _all_right(rows, "pair"),
    }


def _all_right(rows: Sequence[Scored], key: str) -> float:
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[row.target[key]].append(row.score or 0.0)
    return percent(float(all(score == 1.0 for score in scores)) for scores in groups.values())


def _request(prediction: str, target: Target, template: str) -> str:
    return template.format(question=target["question"], answer=target["details"], prediction=prediction)


def _read(reply: str, prediction: str, target: Target) -> list[float] | None:
    word = stated_word(reply, ("correct", "incorrect", "unclear"))
    if word is None:
        return None
    return [float(word == "correct" or (word == "unclear" and target["blind"]))]


BENCHMARK = Benchmark(
    name="hallusion_bench",
    title="HallusionBench",
    source=Source("lmms-lab-encoder/HallusionBench", "image"),
    licence="BSD-3-Clause*",
    metric="accuracy over questions; over figures and question pairs if all are right",
    fields=(
        "category",
        "subcategory",
        "set_id",
        "figure_id",
        "question_id",
        "question",
        "gt_answer",
        "gt_answer_details",
    ),
    ask=_ask,
    score=lambda prediction, target: float(read_yes_no(prediction) == target["answer"]),
    summarise=_summarise,
    main="aAcc by rule",
    judged=Judged(_request, _read, _summarise_judged, main="aAcc", template=_TEMPLATE),
    note="By rule as VLMEvalKit reads yes and no. The authors let GPT-4 compare with the detailed answer.",
    units=in_units(lambda row: row.target["figure"]),
)
