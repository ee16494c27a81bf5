"""Video-MME: four options about a short, medium or long video."""

from __future__ import annotations

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Source, Target, accuracy
from slime_vlm.evaluation.benchmarks.letters import score_stated_letter
from slime_vlm.evaluation.metrics.choices import LETTERS

_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)


def _ask(record: Record, index: int) -> Question:
    options = [str(option) for option in record["options"]]
    lines = "\n".join(options)
    prompt = f"{_INSTRUCTION}\n{record['question']} The choices are listed below: \n{lines}\nThe best answer is:"
    texts = [option.partition(". ")[2] or option for option in options]
    target: Target = {
        "answer": str(record["answer"]).strip(),
        "options": dict(zip(LETTERS, texts, strict=False)),
        "duration": str(record["duration"]),
        "domain": str(record["domain"]),
    }
    return Question(str(record["question_id"]), prompt, (f"videos/{record['videoID']}.mp4",), target)


BENCHMARK = Benchmark(
    name="video_mme",
    title="Video-MME",
    source=Source("lmms-eval/Video-MME", "test"),
    licence="academic research only*",
    metric="accuracy of the letter, without subtitles",
    fields=("videoID", "duration", "domain", "question_id", "question", "options", "answer"),
    ask=_ask,
    score=score_stated_letter,
    summarise=accuracy("duration", "domain"),
    main="accuracy",
    max_new_tokens=64,
    note="Eight frames per video, each a tile. The mean of their features is the global view, as published.",
)
