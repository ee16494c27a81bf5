"""V* Bench: position and colour of one small object in a large photograph."""

from __future__ import annotations

import re

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Source, Target, accuracy
from slime_vlm.evaluation.benchmarks.prompts import LETTER, option_lines
from slime_vlm.evaluation.metrics.choices import LETTERS
from slime_vlm.evaluation.metrics.vstar import vstar_letter

_OPTION = re.compile(r"\(([A-Z])\)\s*")


def _ask(record: Record, index: int) -> Question:
    text = re.sub(r"\s*Answer with the option's letter[^\n]*", "", str(record["text"]))
    question, *rest = _OPTION.split(text)
    # After the question, letters and texts alternate.
    options = [option.strip() for option in rest[1::2]]
    target: Target = {
        "answer": str(record["label"]).strip(),
        "options": dict(zip(LETTERS, options, strict=False)),
        "category": str(record["category"]),
    }
    prompt = f"{question.strip()}\n{option_lines(options)}{LETTER}"
    return Question(str(record["question_id"]), prompt, (record["image"],), target)


BENCHMARK = Benchmark(
    name="vstar",
    title="V* Bench",
    source=Source("lmms-lab-encoder/vstar-bench", "test"),
    licence="MIT*",
    metric="accuracy of the letter",
    fields=("question_id", "text", "label", "category", "image"),
    ask=_ask,
    score=lambda prediction, target: float(vstar_letter(prediction) == target["answer"]),
    summarise=accuracy("category"),
    main="accuracy",
    note="Upstream compares the likelihoods of the options. Here the model generates a letter.",
)
