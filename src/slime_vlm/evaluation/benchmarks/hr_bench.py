"""HR-Bench: small details in images of 4K and 8K. Every question has four rotations, which count separately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Target,
    in_units,
    mean_of_groups,
)
from slime_vlm.evaluation.benchmarks.prompts import letter_options, option_lines
from slime_vlm.evaluation.metrics.mmbench import hr_bench_letter


def _ask(record: Record, index: int) -> Question:
    options = letter_options(record)
    prompt = f"{record['question']}\n{option_lines(list(options.values()))}\nAnswer the option letter directly."
    target: Target = {
        "answer": str(record["answer"]).strip(),
        "options": options,
        "category": str(record["category"]),
        "cycle": str(record["cycle_category"]),
    }
    # Rotations of a question may share an index.
    return Question(f"{record['index']}-{target['cycle']}", prompt, (record["image"],), target)


def _score(prediction: str, target: Target) -> float:
    return float(hr_bench_letter(prediction, target["options"]) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    return {
        "all": mean_of_groups(rows, "cycle"),
        "single": mean_of_groups([row for row in rows if row.target["category"] == "single"], "cycle"),
        "cross": mean_of_groups([row for row in rows if row.target["category"] == "cross"], "cycle"),
    }


BENCHMARK = Benchmark(
    name="hr_bench_4k",
    title="HR-Bench 4K",
    source=Source("DreamMr/HR-Bench", "hrbench_4k", config="hrbench_version_split"),
    licence="its own (see its page)",
    metric="accuracy, mean over rotations",
    fields=("index", "question", "answer", "category", "cycle_category", "A", "B", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="all",
    units=in_units(lambda row: row.id.rpartition("-")[0]),
)

LARGER = replace(
    BENCHMARK, name="hr_bench_8k", title="HR-Bench 8K", source=replace(BENCHMARK.source, split="hrbench_8k")
)
