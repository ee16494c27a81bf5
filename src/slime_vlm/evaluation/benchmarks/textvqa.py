"""TextVQA: questions about text in photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Source, Submission, Target, accuracy
from slime_vlm.evaluation.benchmarks.prompts import SHORT_ANSWER, capitalised, texts
from slime_vlm.evaluation.metrics.vqa import normalise_answer, vqa_accuracy


def _asker(ocr: bool) -> Callable[[Record, int], Question]:
    def ask(record: Record, index: int) -> Question:
        hint = f"\nReference OCR token: {', '.join(record['ocr_tokens'])}" if ocr else ""
        number = int(record["question_id"])
        target = {"question_id": number, "answers": texts(record.get("answers"))}
        prompt = capitalised(record["question"]) + hint + SHORT_ANSWER
        return Question(str(number), prompt, (record["image"],), target)

    return ask


def _score(prediction: str, target: Target) -> float | None:
    return vqa_accuracy(prediction, target["answers"]) if any(target["answers"]) else None


BENCHMARK = Benchmark(
    name="textvqa",
    title="TextVQA",
    source=Source("lmms-lab-encoder/textvqa", "validation", test_split="test"),
    licence="CC BY 4.0*",
    metric="VQA accuracy",
    fields=("question_id", "question", "image"),
    ask=_asker(ocr=False),
    score=_score,
    summarise=accuracy(),
    main="accuracy",
    submission=Submission(
        "submission.json",
        lambda prediction, target: {"question_id": target["question_id"], "answer": normalise_answer(prediction)},
    ),
    note="The prompt has no OCR tokens. LLaVA-1.5 and SliME report numbers with them (textvqa_ocr).",
)

WITH_OCR = replace(
    BENCHMARK,
    name="textvqa_ocr",
    title="TextVQA with OCR tokens",
    fields=(*BENCHMARK.fields, "ocr_tokens"),
    ask=_asker(ocr=True),
    note="The prompt contains the data set's OCR tokens, as in the numbers of LLaVA-1.5 and SliME.",
)
