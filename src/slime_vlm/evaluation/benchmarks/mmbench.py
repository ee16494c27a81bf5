"""MMBench and MMBench-CN: multiple choice, every question asked once per rotation of its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Judged,
    Question,
    Record,
    Scored,
    Source,
    Submission,
    Target,
    percent,
)
from slime_vlm.evaluation.benchmarks.letters import score_stated_letter
from slime_vlm.evaluation.benchmarks.prompts import LETTER, LETTER_CN, is_missing, letter_options, option_lines
from slime_vlm.evaluation.metrics.choices import stated_letter
from slime_vlm.evaluation.metrics.circular import ROTATION, circular_scores

_TEMPLATE = (
    "A question has these options:\n{options}\nSomebody answered: {prediction}\n"
    "Which option does that answer mean? Reply with its letter alone, or with Z if it means none of them."
)


def _asker(suffix: str) -> Callable[[Record, int], Question]:
    def ask(record: Record, index: int) -> Question:
        options = letter_options(record)
        hint = "" if is_missing(record.get("hint")) else f"{record['hint']}\n"
        prompt = f"{hint}{record['question']}\n{option_lines(list(options.values()))}{suffix}"
        answer = None if is_missing(record.get("answer")) else str(record["answer"]).strip()
        category = str(record.get("category"))
        target: Target = {"index": int(record["index"]), "question": record["question"], "options": options}
        target |= {"answer": answer, "category": category}
        return Question(str(target["index"]), prompt, (record["image"],), target)

    return ask


def _score(prediction: str, target: Target) -> float | None:
    if target["answer"] is None:
        return None
    return score_stated_letter(prediction, target)


def _circular(rows: Sequence[Scored], name: str, scores: Sequence[float]) -> dict[str, float]:
    bases = circular_scores((row.target["index"], score) for row, score in zip(rows, scores, strict=True))
    once = [score for row, score in zip(rows, scores, strict=True) if row.target["index"] < ROTATION]
    result = {name: percent(bases.values()), "without rotations": percent(once)}
    # The rotations of a question repeat the category of its base row.
    categories = {row.target["index"] % ROTATION: row.target["category"] for row in rows}
    for category in sorted(set(categories.values())):
        result[category] = percent(score for base, score in bases.items() if categories[base] == category)
    return result


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    known = [row for row in rows if row.score is not None]
    if not known:
        return {}
    return _circular(known, "circular by rule", [row.score or 0.0 for row in known])


def _request(prediction: str, target: Target, template: str) -> str | None:
    if target["answer"] is None or stated_letter(prediction, target["options"]) is not None:
        return None
    options = option_lines(list(target["options"].values()))
    return template.format(question=target["question"], options=options, prediction=prediction)


def _read(reply: str, prediction: str, target: Target) -> list[float] | None:
    letter = reply.strip().strip("().")[:1].upper()
    return [float(letter == target["answer"])] if letter in target["options"] or letter == "Z" else None


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    known = [row for row in rows if row.score is not None]
    if not known:
        return {}
    return _circular(known, "circular", [row.marks[0] if row.marks else 0.0 for row in known])


def _entry(prediction: str, target: Target) -> dict[str, Any]:
    options = {letter: target["options"].get(letter) for letter in "ABCD"}
    return {"index": target["index"], "question": target["question"], **options, "prediction": prediction}


BENCHMARK = Benchmark(
    name="mmbench",
    title="MMBench",
    source=Source("lmms-lab-encoder/MMBench", "dev", config="en", test_split="test"),
    licence="Apache-2.0*",
    metric="circular accuracy",
    fields=("index", "question", "A", "B", "image"),
    ask=_asker(LETTER),
    score=_score,
    summarise=_summarise,
    main="circular by rule",
    judged=Judged(_request, _read, _summarise_judged, main="circular", template=_TEMPLATE),
    submission=Submission("submission.xlsx", _entry),
    note="For the official number, a language model extracts the letters that no rule can extract.",
)

CHINESE = replace(
    BENCHMARK,
    name="mmbench_cn",
    title="MMBench-CN",
    source=replace(BENCHMARK.source, config="cn"),
    ask=_asker(LETTER_CN),
)
