"""RealWorldQA: questions about photographs, many from vehicles, with letters, words or numbers as answers."""

from __future__ import annotations

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Source, Target, accuracy
from slime_vlm.evaluation.metrics.ranked_letter import ranked_letter

_LETTERS = "ABCD"


def _ask(record: Record, index: int) -> Question:
    # Options and instruction stand in the question.
    target = {"answer": str(record["answer"]).strip()}
    return Question(str(index), record["question"].strip(), (record["image"],), target)


def _score(prediction: str, target: Target) -> float:
    answer = target["answer"]
    if answer.upper() in set(_LETTERS):
        return float(ranked_letter(prediction, _LETTERS) == answer.upper())
    return float(prediction.lower().strip().rstrip(".") == answer.lower())


BENCHMARK = Benchmark(
    name="realworldqa",
    title="RealWorldQA",
    source=Source("lmms-lab-encoder/RealWorldQA", "test"),
    licence="CC BY-ND 4.0*",
    metric="accuracy of letter or text",
    fields=("question", "answer", "image"),
    ask=_ask,
    score=_score,
    summarise=accuracy(),
    main="accuracy",
    max_new_tokens=16,
    note="Its authors published no script. The rule is lmms-eval's.",
)
