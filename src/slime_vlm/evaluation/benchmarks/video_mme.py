"""Video-MME: four options about a short, medium or long video."""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Target,
    accuracy,
    by_group,
    in_units,
)
from slime_vlm.evaluation.metrics.ranked_letter import ranked_letter

_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)


def _ask(record: Record, index: int) -> Question:
    options = [str(option) for option in record["options"]]
    lines = "\n".join(options)
    prompt = f"{_INSTRUCTION}\n{record['question']} The choices are listed below: \n{lines}\nThe best answer is:"
    target: Target = {
        "answer": str(record["answer"]).strip(),
        "duration": str(record["duration"]),
        "domain": str(record["domain"]),
    }
    target |= {name: str(record[name]) for name in ("sub_category", "task_type") if name in record}
    return Question(str(record["question_id"]), prompt, (f"videos/{record['videoID']}.mp4",), target)


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    result = accuracy("duration", "domain")(rows)
    return result | by_group(rows, "sub_category", "sub-category ") | by_group(rows, "task_type", "task ")


BENCHMARK = Benchmark(
    name="video_mme",
    title="Video-MME",
    source=Source("lmms-eval/Video-MME", "test"),
    licence="academic research only*",
    metric="accuracy of the letter, without subtitles",
    fields=("videoID", "duration", "domain", "question_id", "question", "options", "answer"),
    ask=_ask,
    score=lambda prediction, target: float(ranked_letter(prediction) == target["answer"]),
    summarise=_summarise,
    main="accuracy",
    max_new_tokens=64,
    units=in_units(lambda row: row.id.partition("-")[0]),
    note="Eight frames per video, each a tile. The mean of their features is the global view, as published.",
)
