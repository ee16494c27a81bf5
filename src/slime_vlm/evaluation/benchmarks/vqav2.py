"""VQAv2: open questions about photographs, with the answers of ten annotators each."""

from __future__ import annotations

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Source, Submission, Target, accuracy
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER, texts
from slime_vlm.evaluation.metrics.vqa import normalise_answer, original_vqa_accuracy


def _ask(record: Record, index: int) -> Question:
    number = int(record["question_id"])
    target = {"question_id": number, "answers": texts(record.get("answers"))}
    return Question(str(number), record["question"] + SHORT_ANSWER, (record["image"],), target)


def _score(prediction: str, target: Target) -> float | None:
    return original_vqa_accuracy(prediction, target["answers"]) if target["answers"] else None


BENCHMARK = Benchmark(
    name="vqav2",
    title="VQAv2",
    source=Source("lmms-lab-encoder/VQAv2", "validation", test_split="test"),
    licence="CC BY 4.0*",
    metric="VQA accuracy, original rule",
    fields=("question_id", "question", "image"),
    ask=_ask,
    score=_score,
    summarise=accuracy(),
    main="accuracy",
    max_new_tokens=16,
    submission=Submission(
        "submission.json",
        lambda prediction, target: {"question_id": target["question_id"], "answer": normalise_answer(prediction)},
        every=True,
    ),
    note="The paper reports test-dev, which only the server scores. vqav2:test writes the file for it.",
)
