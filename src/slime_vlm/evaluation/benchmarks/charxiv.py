"""CharXiv (reasoning part): questions about charts of scientific papers, graded by a language model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Judged,
    Question,
    Record,
    Scored,
    Source,
    Target,
    by_group,
    percent,
)
from slime_vlm.evaluation.metrics.judge_reply import stated_mark

_KINDS = {1: "text in chart", 2: "text in general", 3: "number in chart", 4: "number in general"}
_ORIGINS = {1: "written by GPT", 2: "inspired by GPT", 3: "written by people"}
# The official instructions for each kind of answer, with their indentation.
_INSTRUCTIONS = {
    1: (
        "Your final answer must be grounded to some text that is explicitly written and relevant to the question in "
        "the chart.",
        "If you need to answer multiple terms, separate them with commas.",
        "Unless specified in the question (such as answering with a letter), you are required to answer the full names "
        "of subplots and/or labels by default.",
    ),
    2: (
        "If there are options in the question, your final answer must conform to one of the options.",
        "If there are additional instructions in the question, follow them accordingly.",
        "If there are neither options nor additional instructions, you are allowed to respond with a short phrase "
        "only.",
    ),
    # The misspelt word is in the official text.
    3: (
        "Your final answer must be grounded to a number that is exlicitly written and relevant to the question in the "
        "chart, even if it's an approximate value.",
        "You are allowed to extract numbers within some text when needed.",
    ),
}
_TEMPLATE = (
    "Question about a chart: {question}\nRight answer: {answer}\nGiven answer: {prediction}\n"
    "Does the given answer come to the right one? A text may be worded otherwise, a number must be the same. Reply 1 "
    "for yes or 0 for no, and nothing else."
)


def _ask(record: Record, index: int) -> Question:
    kind, question, answer = int(record["reasoning_a_type"]), record["reasoning_q"], str(record["reasoning_a"])
    if kind not in _KINDS:
        raise DataError(f"CharXiv: record {index} has the type of answer {kind}, expected 1 to 4")
    lines = [f"* {line}" for line in _INSTRUCTIONS[kind]] if kind in _INSTRUCTIONS else [_number_format(answer)]
    prompt = "".join(f"{line}\n    " for line in (question, *lines))
    target: Target = {"question": question, "reference": answer, "kind": _KINDS[kind], **chart_groups(record)}
    if "reasoning_q_source" in record:
        target["origin"] = _ORIGINS[int(record["reasoning_q_source"])]
    return Question(str(record["figure_path"]), prompt, (record["image"],), target)


def _number_format(answer: str) -> str:
    _, point, decimals = answer.partition(".")
    if point:
        return f"* Your final answer must be a number with {len(decimals)} decimal places."
    return "* Your final answer must be an exact integer."


def chart_groups(record: Record) -> Target:
    """Return the fields by which the official script groups charts: subject, year, and number of subplots."""
    found = {name: str(record[key]) for name, key in (("subject", "category"), ("year", "year")) if key in record}
    if "num_subplots" in record:
        count = int(record["num_subplots"])
        found["subplots"] = "1 subplot" if count == 1 else "2-4 subplots" if count < 5 else "5+ subplots"
    return found


def groups_of(rows: Sequence[Scored]) -> dict[str, float]:
    """Return the accuracy by subject, year and number of subplots."""
    return {**by_group(rows, "subject", "subject "), **by_group(rows, "year", "year 20"), **by_group(rows, "subplots")}


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    marked = [replace(row, score=row.marks[0] if row.marks else 0.0) for row in rows]
    return {
        "accuracy": percent(row.score for row in marked),
        **by_group(marked, "kind"),
        **by_group(marked, "origin"),
        **groups_of(marked),
    }


def _request(prediction: str, target: Target, template: str) -> str:
    return template.format(question=target["question"], answer=target["reference"], prediction=prediction)


def read_verdict(reply: str, prediction: str, target: Target) -> list[float] | None:
    """Return the mark 0 or 1 of a judge's reply, or None if it states none."""
    # The official prompt asks for JSON with a score.
    try:
        mark = json.loads(reply)["score"]
    except (ValueError, LookupError, TypeError):
        mark = stated_mark(reply)
    return [float(mark)] if mark in (0, 1) else None


BENCHMARK = Benchmark(
    name="charxiv_reasoning",
    title="CharXiv (reasoning)",
    source=Source("princeton-nlp/CharXiv", "validation"),
    licence="CC BY-SA 4.0*",
    metric="accuracy by a judge",
    fields=("reasoning_q", "reasoning_a", "reasoning_a_type", "figure_path", "image"),
    ask=_ask,
    score=lambda prediction, target: None,
    summarise=lambda rows: {},
    main=None,
    max_new_tokens=256,
    judged=Judged(_request, read_verdict, _summarise_judged, main="accuracy", template=_TEMPLATE),
    note="No rule replaces the judge: without one there are predictions but no score. The official judge is GPT-4o.",
)
