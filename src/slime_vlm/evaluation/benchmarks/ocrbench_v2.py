"""OCRBench v2: text in images, in English and Chinese. Types that need other packages are asked and not scored."""

from __future__ import annotations

import ast
from collections.abc import Sequence
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
    percent,
)
from slime_vlm.evaluation.benchmarks.prompts import is_missing
from slime_vlm.evaluation.metrics.ocrbench_v2 import (
    count_match,
    formula_match,
    grounding_match,
    handwriting_match,
    letters_match,
    pairs_match,
    position_match,
    short_or_near,
)

# Groups of which every type is scored here. The official averages are those of eight English and five Chinese groups.
_GROUPS = {
    "text detection": ("text grounding en", "VQA with position en"),
    "relationship extraction": ("key information extraction en", "key information mapping en"),
    "mathematical calculation": ("math QA en", "text counting en"),
    "visual text understanding": ("document classification en", "cognition VQA en", "diagram QA en"),
    "knowledge reasoning": ("reasoning VQA en", "science QA en", "APP agent en", "ASCII art classification en"),
    "visual text understanding cn": ("cognition VQA cn",),
}
_SHORT = {
    *_GROUPS["visual text understanding"], *_GROUPS["knowledge reasoning"], "math QA en", "text recognition en",
    "cognition VQA cn", "reasoning VQA cn",
}  # fmt: skip
_PAIRS = {*_GROUPS["relationship extraction"], "key information extraction cn"}
# Official scores of these need tree edit distance (TEDS), METEOR with WordNet, or the RRC portal's spotting script.
_NOT_SCORED = {
    "fine-grained text recognition en", "full-page OCR en", "full-page OCR cn", "text spotting en", "table parsing en",
    "table parsing cn", "chart parsing en", "document parsing en", "document parsing cn", "text translation cn",
}  # fmt: skip
_OTHERS = {
    *_GROUPS["text detection"], "text counting en", "formula recognition en", "formula recognition cn",
    "handwritten answer extraction cn",
}  # fmt: skip
# Questions for a short text among handwritten answers, which METEOR scores.
_FREE_TEXT = "简答"


def _ask(record: Record, index: int) -> Question:
    kind = str(record["type"])
    if kind not in _SHORT | _PAIRS | _OTHERS | _NOT_SCORED:
        raise DataError(f"OCRBench v2: record {index} has the unknown type {kind!r:.40}")
    answers = record["answers"]
    target: Target = {
        "type": kind,
        "answers": [str(answer) for answer in (answers if isinstance(answers, list | tuple) else [answers])],
        "method": "" if is_missing(record.get("eval")) else str(record["eval"]),
        "box": _list(record.get("bbox")),
        "free": _FREE_TEXT in record["question"],
    }
    return Question(str(record.get("id", index)), record["question"].strip(), (record["image"],), target)


def _list(value: Any) -> list[Any]:
    """Return a cell that holds a list, a list as Python source, or nothing."""
    if is_missing(value):
        return []
    return list(ast.literal_eval(value) if isinstance(value, str) else value)


def _score(prediction: str, target: Target) -> float | None:
    kind, answers, method = target["type"], target["answers"], target["method"]
    if kind in _NOT_SCORED or (kind.startswith("handwritten") and target["free"]):
        return None
    if kind in _PAIRS:
        return pairs_match(prediction, answers[0])
    if kind == "text counting en":
        return count_match(prediction, answers, near=method == "regression")
    if kind.startswith("formula"):
        return formula_match(prediction, answers, chinese=kind.endswith("cn"))
    if kind.startswith("handwritten"):
        return handwriting_match(prediction, answers[0])
    if kind == "text grounding en":
        return grounding_match(prediction, answers)
    if kind == "VQA with position en":
        return position_match(prediction, answers, target["box"])
    if method == "multiple choice":
        return letters_match(prediction, answers[0])
    case = method == "case sensitive"
    return short_or_near(prediction, answers, case=case, chinese=kind.endswith("cn") and not case)


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    known = [row for row in rows if row.score is not None]
    groups: dict[str, float] = {}
    for group, kinds in _GROUPS.items():
        members = [row.score for row in known if row.target["type"] in kinds]
        if members:
            groups[group] = percent(members)
    english = [value for group, value in groups.items() if not group.endswith("cn")]
    return {
        "mean of scored English groups": sum(english) / len(english) if english else 0.0,
        **groups,
        **by_group(known, "type"),
        "not scored": percent(float(row.score is None) for row in rows),
    }


BENCHMARK = Benchmark(
    name="ocrbench_v2",
    title="OCRBench v2 (in part)",
    source=Source("ling99/OCRBench_v2", "test"),
    licence="licences of its 81 sources*",
    metric="mean of five of the eight English groups; not the official average",
    fields=("question", "type", "answers", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="mean of scored English groups",
    max_new_tokens=512,
    note="Recognition of whole texts, spotting, and parsing of tables, charts and documents are asked and not scored.",
)
