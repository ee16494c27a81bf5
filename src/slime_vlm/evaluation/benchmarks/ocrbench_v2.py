"""OCRBench v2: text in images, in English and Chinese.

Whole texts, tables, charts and documents are scored with the packages of the extra `scores`. Where one is missing,
their answers have no score, and the official averages are left out.
"""

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
from slime_vlm.evaluation.metrics.spotting import spotting_match
from slime_vlm.evaluation.metrics.tree_distance import (
    chart_similarity,
    document_similarity,
    html_similarity,
    lacking_for_trees,
    markdown_similarity,
)
from slime_vlm.evaluation.metrics.whole_text import lacking_for_texts, text_similarity

# The official averages are the means of the eight English and of the five Chinese groups.
_ENGLISH = {
    "text recognition": ("text recognition en", "fine-grained text recognition en", "full-page OCR en"),
    "text detection": ("text grounding en", "VQA with position en"),
    "text spotting": ("text spotting en",),
    "relationship extraction": ("key information extraction en", "key information mapping en"),
    "element parsing": ("document parsing en", "chart parsing en", "table parsing en", "formula recognition en"),
    "mathematical calculation": ("math QA en", "text counting en"),
    "visual text understanding": ("document classification en", "cognition VQA en", "diagram QA en"),
    "knowledge reasoning": ("reasoning VQA en", "science QA en", "APP agent en", "ASCII art classification en"),
}
_CHINESE = {
    "text recognition cn": ("full-page OCR cn",),
    "relationship extraction cn": ("key information extraction cn", "handwritten answer extraction cn"),
    "element parsing cn": ("document parsing cn", "table parsing cn", "formula recognition cn"),
    "visual text understanding cn": ("cognition VQA cn",),
    "knowledge reasoning cn": ("reasoning VQA cn", "text translation cn"),
}
_KINDS = {kind for kinds in (*_ENGLISH.values(), *_CHINESE.values()) for kind in kinds}
_PAIRS = {*_ENGLISH["relationship extraction"], "key information extraction cn"}
_TEXTS = {"fine-grained text recognition en", "full-page OCR en", "full-page OCR cn", "text translation cn"}
_TREES = {"document parsing en", "document parsing cn", "chart parsing en", "table parsing en", "table parsing cn"}
# Questions for a short text among handwritten answers, which METEOR scores.
_FREE_TEXT = "简答"


def _ask(record: Record, index: int) -> Question:
    kind = str(record["type"])
    if kind not in _KINDS:
        raise DataError(f"OCRBench v2: record {index} has the unknown type {kind!r:.40}")
    answers = record["answers"]
    target: Target = {
        "type": kind,
        "answers": [str(answer) for answer in (answers if isinstance(answers, list | tuple) else [answers])],
        "method": "" if is_missing(record.get("eval")) else str(record["eval"]),
        "box": _list(record.get("bbox")),
        "free": _FREE_TEXT in record["question"],
    }
    if kind == "text spotting en":
        # The copy on the hub keeps several boxes apart from a single one.
        boxes = _list(record.get("bbox_list")) or target["box"]
        texts = [str(text) for text in _list(record.get("content"))]
        if not boxes or not texts:
            raise DataError(
                f"OCRBench v2: record {index} is about text spotting, and has {len(boxes)} boxes and {len(texts)} "
                "texts; expected some in bbox_list (or bbox) and content"
            )
        # Like the official script, leave out boxes without a text.
        number = min(len(boxes), len(texts))
        target |= {"box": boxes[:number], "content": texts[:number]}
    if kind == "table parsing en":
        question = record["question"].lower()
        target["format"] = "html" if "html" in question else "markdown" if "markdown" in question else ""
    return Question(str(record.get("id", index)), record["question"].strip(), (record["image"],), target)


def _list(value: Any) -> list[Any]:
    """Return a cell that holds a list, a list as Python source, or nothing."""
    if is_missing(value):
        return []
    return list(ast.literal_eval(value) if isinstance(value, str) else value)


def _score(prediction: str, target: Target) -> float | None:
    kind, answers, method = target["type"], target["answers"], target["method"]
    if _lacking(target):
        return None
    if _is_text(target):
        if kind == "text translation cn" and prediction and not answers[0]:
            # The official script leaves it out of the average.
            return None
        return text_similarity(prediction, answers[0])
    if kind in _TREES:
        return _tree_score(prediction, target)
    if kind == "text spotting en":
        return spotting_match(prediction, target["box"], target["content"])
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


def _tree_score(prediction: str, target: Target) -> float | None:
    kind, answer = target["type"], target["answers"][0]
    if kind.startswith("document"):
        return document_similarity(prediction, answer)
    if kind.startswith("chart"):
        return chart_similarity(prediction, answer)
    form = target.get("format", "html")
    if form == "markdown":
        return markdown_similarity(prediction, answer)
    return html_similarity(prediction, answer) if form else None


def _is_text(target: Target) -> bool:
    return target["type"] in _TEXTS or (target["type"].startswith("handwritten") and target["free"])


def _lacking(target: Target) -> str:
    """Return what the score of an answer lacks on this machine, or nothing."""
    if _is_text(target):
        return lacking_for_texts()
    return lacking_for_trees() if target["type"] in _TREES else ""


def _all_lacking(rows: Sequence[Scored]) -> str:
    found = sorted({_lacking(row.target) for row in rows} - {""})
    return f"{'; '.join(found)}. Without that there is no official average." if found else ""


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    known = [row for row in rows if row.score is not None]
    left_out = {row.target["type"] for row in rows if _lacking(row.target)}
    groups = {
        group: percent(row.score for row in known if row.target["type"] in kinds)
        for group, kinds in {**_ENGLISH, **_CHINESE}.items()
        # A group of which some answers have no score has no number.
        if any(row.target["type"] in kinds for row in known) and not left_out & set(kinds)
    }
    result: dict[str, float] = {}
    for name, members in (("English", _ENGLISH), ("Chinese", _CHINESE)):
        values = [groups[group] for group in members if group in groups]
        complete = not any(left_out & set(kinds) for kinds in members.values())
        if values:
            result[f"{name} average" if complete else f"mean of scored {name} groups"] = sum(values) / len(values)
    unscored = percent(float(row.score is None) for row in rows)
    return {**result, **groups, **by_group(known, "type"), "not scored": unscored}


BENCHMARK = Benchmark(
    name="ocrbench_v2",
    title="OCRBench v2",
    source=Source("ling99/OCRBench_v2", "test"),
    licence="licences of its 81 sources*",
    metric="mean of eight English groups; five Chinese ones have a mean of their own",
    fields=("question", "type", "answers", "image"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="English average",
    max_new_tokens=512,
    lacking=_all_lacking,
)
