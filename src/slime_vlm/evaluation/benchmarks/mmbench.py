"""MMBench and MMBench-CN: multiple choice, every question asked once per rotation of its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    by_rules,
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import LETTER, LETTER_CN, is_missing, letter_options, option_lines
from slime_vlm.evaluation.metrics.circular import ROTATION, circular_scores
from slime_vlm.evaluation.metrics.mmbench import mmbench_letter, mmbench_letter_lmms_eval

_TEMPLATE = (
    "A question has these options:\n{options}\nSomebody answered: {prediction}\n"
    "Which option does that answer mean? Reply with its letter alone, or with Z if it means none of them."
)


def _asker(suffix: str) -> Callable[[Record, int], Question]:
    def ask(record: Record, index: int) -> Question:
        options = letter_options(record)
        hint = "" if is_missing(record.get("hint")) else f"{record['hint']}\n"
        # If even the first option is missing, the official script asks without options.
        lines = "".join(f"\n{letter}. {option}" for letter, option in options.items())
        prompt = f"{hint}{record['question']}{lines}{suffix}"
        answer = None if is_missing(record.get("answer")) else str(record["answer"]).strip()
        target: Target = {"index": int(record["index"]), "question": record["question"], "options": options}
        target |= {"answer": answer, "category": str(record.get("category"))}
        # Both spellings of the column occur.
        wider = record.get("l2-category", record.get("L2-category"))
        target |= {} if is_missing(wider) else {"L2": str(wider)}
        return Question(str(target["index"]), prompt, (record["image"],), target)

    return ask


def _circular(rows: Sequence[Scored], name: str, scores: Sequence[float]) -> dict[str, float]:
    bases = circular_scores((row.target["index"], score) for row, score in zip(rows, scores, strict=True))
    once = [score for row, score in zip(rows, scores, strict=True) if row.target["index"] < ROTATION]
    result = {name: percent(bases.values()), "without rotations": percent(once)}
    for key, prefix in (("L2", "L2 "), ("category", "")):
        # The rotations of a question repeat the categories of its base row.
        groups = {row.target["index"] % ROTATION: row.target[key] for row in rows if key in row.target}
        for group in sorted(set(groups.values())):
            result[prefix + group] = percent(score for base, score in bases.items() if groups.get(base) == group)
    return result


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    known = [row for row in rows if row.score is not None]
    if not known:
        return {}
    return _circular(known, "circular by rule", [row.score or 0.0 for row in known])


def _read(reply: str, prediction: str, target: Target) -> list[float] | None:
    letter = mmbench_letter(reply, target["options"])
    return None if letter is None else [float(letter == target["answer"])]


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    known = [row for row in rows if row.score is not None]
    if not known:
        return {}
    return _circular(known, "circular", [row.marks[0] if row.marks else 0.0 for row in known])


def _units(rows: Sequence[Scored]) -> dict[str, tuple[float, int]]:
    """Count a question and its rotations as one, right if all of them are."""
    scores = circular_scores((row.target["index"], row.score) for row in rows if row.score is not None)
    return {str(base): (score, 1) for base, score in scores.items()}


def _entry(prediction: str, target: Target) -> dict[str, Any]:
    options = {letter: target["options"].get(letter) for letter in "ABCD"}
    return {"index": target["index"], "question": target["question"], **options, "prediction": prediction}


def _benchmark(letter: Callable[[str, Mapping[str, str]], str | None]) -> Benchmark:
    """Return the English benchmark with a rule that reads letters."""

    def score(prediction: str, target: Target) -> float | None:
        if target["answer"] is None:
            return None
        return float(letter(prediction, target["options"]) == target["answer"])

    def request(prediction: str, target: Target, template: str) -> str | None:
        if target["answer"] is None or letter(prediction, target["options"]) is not None:
            return None
        options = option_lines(list(target["options"].values()))
        return template.format(question=target["question"], options=options, prediction=prediction)

    return Benchmark(
        name="mmbench",
        title="MMBench",
        source=Source("lmms-lab-encoder/MMBench", "dev", config="en", test_split="test"),
        licence="Apache-2.0*",
        metric="circular accuracy",
        fields=("index", "question", "A", "B", "image"),
        ask=_asker(LETTER),
        score=score,
        summarise=_summarise,
        main="circular by rule",
        units=_units,
        judged=Judged(request, _read, _summarise_judged, main="circular", template=_TEMPLATE),
        submission=Submission("submission.xlsx", _entry),
        note="For the official number, a language model extracts the letters that no rule can extract.",
    )


def _chinese(benchmark: Benchmark) -> Benchmark:
    source = replace(benchmark.source, config="cn")
    return replace(benchmark, name="mmbench_cn", title="MMBench-CN", source=source, ask=_asker(LETTER_CN))


_BY_RULE = {"authors": _benchmark(mmbench_letter), "lmms-eval": _benchmark(mmbench_letter_lmms_eval)}

BENCHMARK = by_rules("authors", _BY_RULE)

CHINESE = by_rules("authors", {name: _chinese(benchmark) for name, benchmark in _BY_RULE.items()})
