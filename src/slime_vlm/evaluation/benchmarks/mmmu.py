"""MMMU: college-level questions with up to seven images, most of them multiple choice."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Target,
    by_group,
    by_rules,
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import LETTER, SHORT_ANSWER, is_missing, option_lines
from slime_vlm.evaluation.metrics.mmmu import mmmu_letter, mmmu_letter_lmms_eval, open_match

_DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
_DOMAIN_OF = {subject: domain for domain, subjects in _DOMAINS.items() for subject in subjects}


def _ask(record: Record, index: int) -> Question:
    name = str(record["id"])
    options, answers = list_of_cell(record["options"], name), list_of_cell(record["answer"], name)
    images = tuple(record[f"image_{n}"] for n in range(1, 8) if not is_missing(record.get(f"image_{n}")))
    choice = record["question_type"] == "multiple-choice"
    block = f"\n{option_lines(options)}\n{LETTER}" if choice else f"\n{SHORT_ANSWER}"
    subject = "_".join(name.split("_")[1:-1])
    target: Target = {"id": name, "choice": choice, "options": options, "answers": answers}
    target |= {"domain": _DOMAIN_OF.get(subject, "other"), "subject": subject}
    # Markers such as <image 1> stay in the text. All images come before it.
    return Question(name, record["question"] + block, images, target)


def list_of_cell(value: Any, name: str) -> list[str]:
    """Return the items of a cell that holds a list, a list as Python source, or a single text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (SyntaxError, ValueError):
            raise DataError(f"MMMU {name}: {value!r:.80} is not a list") from None
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _benchmark(read: Callable[[str, Sequence[str], str], tuple[str, bool]]) -> Benchmark:
    """Return the benchmark with a rule that reads letters."""

    def score(prediction: str, target: Target) -> float:
        if target["choice"]:
            return float(read(prediction, target["options"], target["id"])[0] in target["answers"])
        return open_match(prediction, target["answers"])

    def summarise(rows: Sequence[Scored]) -> dict[str, float]:
        choices = [row for row in rows if row.target["choice"]]
        drawn = [read(row.prediction, row.target["options"], row.target["id"])[1] for row in choices]
        result = {"accuracy": percent(row.score for row in rows)}
        result |= by_group(rows, "domain") | by_group(rows, "subject", "subject ")
        return {**result, "letters drawn": percent(map(float, drawn))}

    return Benchmark(
        name="mmmu",
        title="MMMU",
        source=Source("lmms-lab-encoder/MMMU", "validation"),
        licence="Apache-2.0*",
        metric="accuracy over all questions",
        fields=("id", "question", "options", "answer", "question_type", "image_1"),
        ask=_ask,
        score=score,
        summarise=summarise,
        main="accuracy",
        note="Where the official rule finds no letter, it draws one. `letters drawn` is the share of such answers.",
    )


BENCHMARK = by_rules("authors", {"authors": _benchmark(mmmu_letter), "lmms-eval": _benchmark(mmmu_letter_lmms_eval)})
