"""MMMU-Pro: MMMU's questions with ten options, as text with images or as one image of the whole question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Target,
    by_group,
    percent,
)
from slime_vlm.evaluation.benchmarks.mmmu import list_of_cell
from slime_vlm.evaluation.benchmarks.prompts import is_missing, option_lines
from slime_vlm.evaluation.metrics.mmmu import mmmu_pro_letter

_STANDARD = "Answer with the option letter from the given choices directly."
_VISION = (
    f"{_STANDARD} The last line of your response should be of the following format: 'Answer: $LETTER' "
    "(without quotes) where LETTER is one of options."
)
_MARKER = re.compile(r"<image\s+(\d+)>")


def _ask(record: Record, index: int) -> Question:
    target = _target(record)
    text = f"{record['question']}\n{option_lines(target['options'])}\n{_STANDARD}"
    # Images are given in the order in which the text refers to them.
    images = [record.get(f"image_{number}") for number in _MARKER.findall(text)]
    shown = tuple(image for image in images if not is_missing(image))
    return Question(target["id"], _MARKER.sub("[image]", text), shown, target)


def _ask_vision(record: Record, index: int) -> Question:
    target = _target(record)
    return Question(target["id"], _VISION, (record["image"],), target)


def _target(record: Record) -> Target:
    name = str(record["id"])
    options = list_of_cell(record["options"], name)
    return {"id": name, "options": options, "answer": str(record["answer"]).strip(), "subject": str(record["subject"])}


def _score(prediction: str, target: Target) -> float:
    return float(mmmu_pro_letter(prediction, target["options"], target["id"])[0] == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    drawn = [mmmu_pro_letter(row.prediction, row.target["options"], row.target["id"])[1] for row in rows]
    result = {"accuracy": percent(row.score for row in rows), **by_group(rows, "subject", "subject ")}
    return {**result, "letters drawn": percent(map(float, drawn))}


STANDARD = Benchmark(
    name="mmmu_pro_standard",
    title="MMMU-Pro (ten options)",
    source=Source("MMMU/MMMU_Pro", "test", config="standard (10 options)"),
    licence="Apache-2.0*",
    metric="accuracy of the letter",
    fields=("id", "question", "options", "answer", "subject", "image_1"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="accuracy",
    max_new_tokens=50,
    note="Direct answers. Where the rule finds no letter, it draws one. `letters drawn` is the share of such answers.",
)

VISION = replace(
    STANDARD,
    name="mmmu_pro_vision",
    title="MMMU-Pro (vision)",
    source=replace(STANDARD.source, config="vision"),
    fields=("id", "options", "answer", "subject", "image"),
    ask=_ask_vision,
)
