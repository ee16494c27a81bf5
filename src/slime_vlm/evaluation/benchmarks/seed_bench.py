"""SEED-Bench: multiple choice about images and video frames."""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Scored, Source, Target, percent
from slime_vlm.evaluation.benchmarks.prompts import LETTER, option_lines
from slime_vlm.evaluation.metrics.choices import first_character


def _ask(record: Record, index: int) -> Question:
    options = [str(record[f"choice_{letter}"]) for letter in "abcd"]
    images = record["image"] if isinstance(record["image"], list | tuple) else [record["image"]]
    prompt = f"{record['question']}\n{option_lines(options)}{LETTER}"
    target = {"answer": str(record["answer"]).strip(), "kind": str(record["data_type"])}
    return Question(str(record["question_id"]), prompt, tuple(images), target)


def _score(prediction: str, target: Target) -> float:
    return float(first_character(prediction) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    return {
        "image": percent(row.score for row in rows if row.target["kind"] == "image"),
        "video": percent(row.score for row in rows if row.target["kind"] == "video"),
        "all": percent(row.score for row in rows),
    }


BENCHMARK = Benchmark(
    name="seed_bench",
    title="SEED-Bench (image)",
    source=Source("lmms-lab-encoder/SEED-Bench", "test"),
    licence="CC BY-NC 4.0*",
    metric="accuracy of the first character, images only",
    fields=("question_id", "question", "choice_a", "choice_b", "choice_c", "choice_d", "answer", "data_type", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="image",
    max_new_tokens=16,
    note="For questions about video, frames are separate images. They count only in `video` and `all`.",
)
