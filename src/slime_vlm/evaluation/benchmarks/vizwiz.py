"""VizWiz-VQA: photographs and questions by blind people, many of them unanswerable."""

from __future__ import annotations

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Source, Submission, Target, accuracy
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER, capitalised, texts
from slime_vlm.evaluation.metrics.vqa import normalise_answer, vqa_accuracy

_UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."


def _ask(record: Record, index: int) -> Question:
    prompt = capitalised(record["question"]) + _UNANSWERABLE + SHORT_ANSWER
    stem = str(record["question_id"])
    return Question(stem, prompt, (record["image"],), {"question_id": stem, "answers": texts(record.get("answers"))})


def _score(prediction: str, target: Target) -> float | None:
    return vqa_accuracy(prediction, target["answers"]) if target["answers"] else None


def _entry(prediction: str, target: Target) -> dict[str, str]:
    name = target["question_id"]
    return {"image": name if "." in name else f"{name}.jpg", "answer": normalise_answer(prediction)}


BENCHMARK = Benchmark(
    name="vizwiz",
    title="VizWiz-VQA",
    source=Source("lmms-lab-encoder/VizWiz-VQA", "val", test_split="test"),
    licence="CC BY 4.0*",
    metric="VQA accuracy",
    fields=("question_id", "question", "image"),
    ask=_ask,
    score=_score,
    summarise=accuracy(),
    main="accuracy",
    submission=Submission("submission.json", _entry),
)
