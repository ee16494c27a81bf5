"""MME-RealWorld: five options about large pictures of five domains."""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Scored, Source, Target, percent
from slime_vlm.evaluation.metrics.choices import realworld_letter

_INSTRUCTION = (
    "Select the best answer to the above multiple-choice question based on the image. "
    "Respond with only the letter (A, B, C, D, or E) of the correct option.\nThe best answer is:"
)


def _ask(record: Record, place: int) -> Question:
    options = [str(option) for option in record["multi-choice options"]]
    lines = "\n".join(options)
    prompt = f"{record['question']} The choices are listed below:\n{lines}\n{_INSTRUCTION}"
    task, _, domain = str(record["category"]).partition("/")
    target: Target = {
        "answer": str(record["answer"]).strip(),
        "options": options,
        "task": task,
        "domain": domain or task,
        "sub-task": f"{record['category']}/{record['l2-category']}",
    }
    return Question(str(record["index"]), prompt, (record["bytes"],), target)


def _score(prediction: str, target: Target) -> float:
    return float(realworld_letter(prediction, target["options"]) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    result = {"accuracy": percent(row.score for row in rows)}
    groups = {
        (key, name): percent(row.score for row in rows if row.target[key] == name)
        for key in ("task", "domain", "sub-task")
        for name in sorted({row.target[key] for row in rows})
    }
    subtasks = [score for (key, _), score in groups.items() if key == "sub-task"]
    result["mean of sub-tasks"] = sum(subtasks) / len(subtasks) if subtasks else 0.0
    return result | {name: score for (_, name), score in groups.items()}


BENCHMARK = Benchmark(
    name="mme_realworld",
    title="MME-RealWorld",
    source=Source("yifanzhang114/MME-RealWorld-Lmms-eval", "train"),
    licence="academic research only, no redistribution",
    metric="accuracy of the letter over all questions",
    fields=("index", "question", "multi-choice options", "answer", "category", "l2-category", "bytes"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="accuracy",
    note="A sentence that starts with the article A counts as option A, as in the official script.",
)
