"""CharXiv (descriptive part): four questions about the elements of every chart, graded by a language model."""

from __future__ import annotations

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
    in_units,
    percent,
)
from slime_vlm.evaluation.benchmarks.charxiv import chart_groups, groups_of, read_verdict
from slime_vlm.evaluation.benchmarks.prompts import is_missing

QUESTIONS = 4
"""Questions about one chart."""

# The parts that the official prompts have in common. A prompt is a question and its instructions, one a line.
_X = "When the x-axis is present on both the top and bottom of the plot, "
_Y = "When the y-axis is present on both the left and right of the plot, "
_UNITS = (
    "Ignore units or scales that are written separately from the tick, such as units and scales from the axis label or "
    "the corner of the plot."
)
_SHARED = "including the case when {0}-axis is shared across multiple subplots. "
_TICK = "Your final answer should be the tick value on the {0}-axis that is explicitly written, " + _SHARED
_STEP = (
    "Your final answer should be the difference between consecutive numerical tick values of the {0}-axis, " + _SHARED
)
_NO_STEP = (
    "If the plot does not have an explicit {}-axis tick value, or if the tick values are not numerical, or if the "
    'difference is not constant between all consecutive tick values, answer "Not Applicable".'
)
_LABEL = "Your final answer should be the label of the {0}-axis that is explicitly written, " + _SHARED
_NO_LINES = 'If the plot does not contain any lines or is not considered a line plot, answer "Not Applicable".'
_LEGEND = (
    "Your final answer should account for only labels relevant to the plot in the legend, even if the legend is "
    "located outside the plot."
)
_NO_LEGEND = (
    'If the plot does not have a legend or no legend is not considered relevant to this plot, answer "Not Applicable".'
)
_NO_BAR = (
    "If the plot does not have an explicit colorbar-based continuous legend or the legend is not considered relevant "
    'to this subplot, answer "Not Applicable".'
)
_PERCENT = "You should remove the percentage sign (if any) in your answer."
_BAR = "value of the tick labels on the continuous legend (i.e., colorbar)?"
_AT_BOTTOM = "answer based on the axis at the bottom. " + _UNITS
# Blanks at the ends of lines, and lines of blanks, are in the official prompts.
_PROMPTS: dict[int, tuple[str, ...]] = {
    1: (
        "what is its title?",
        "Your final answer should be the most relevant title of the plot that is explicitly written.",
        "If the plot does not have an explicit title or contains only a letter, answer 'Not Applicable'.",
        "",
    ),
    2: (
        "what is the label of the x-axis?",
        _LABEL.format("x") + _X + "answer the label of the x-axis at the bottom.",
        "If the plot does not have an explicit x-axis label, answer 'Not Applicable'.",
        "",
    ),
    3: (
        "what is the label of the y-axis?",
        _LABEL.format("y") + _Y + "answer the label of the y-axis at the left.",
        "If the plot does not have an explicit y-axis label, answer 'Not Applicable'.",
    ),
    4: ("what is the leftmost labeled tick on the x-axis?", _TICK.format("x") + _X + _AT_BOTTOM),
    5: ("what is the rightmost labeled tick on the x-axis?", _TICK.format("x") + _X + _AT_BOTTOM),
    6: (
        "what is the spatially lowest labeled tick on the y-axis?",
        _TICK.format("y") + _Y + "based on the axis at the left. " + _UNITS,
    ),
    7: (
        "what is the spatially highest labeled tick on the y-axis?",
        _TICK.format("y") + _Y + "based on the axis at the left. " + _UNITS,
    ),
    8: (
        "what is difference between consecutive numerical tick values on the x-axis?",
        _STEP.format("x") + _X + _AT_BOTTOM,
        _NO_STEP.format("x"),
    ),
    9: (
        "what is difference between consecutive numerical tick values on the y-axis?",
        _STEP.format("y") + _Y + "answer based on the axis at the left. " + _UNITS,
        _NO_STEP.format("y"),
    ),
    10: (
        "how many lines are there?",
        "Your final answer should be the number of lines in the plot. Ignore grid lines, tick marks, and any vertical "
        "or horizontal auxiliary lines.",
        _NO_LINES,
    ),
    11: (
        "do any lines intersect?",
        'Your final answer should be "Yes" if any lines intersect, and "No" otherwise. Ignore grid lines, tick marks, '
        "and any vertical or horizontal auxiliary lines.",
        _NO_LINES,
    ),
    12: ("how many discrete labels are there in the legend?", _LEGEND + " ", _NO_LEGEND),
    13: (
        "what are the names of the labels in the legend?",
        "You should write down the labels from top to bottom, then from left to right and separate the labels with "
        "commas. " + _LEGEND,
        _NO_LEGEND,
    ),
    14: (
        f"what is the difference between the maximum and minimum {_BAR.replace('value', 'values')}",
        _PERCENT,
        _NO_BAR,
    ),
    15: (f"what is the maximum {_BAR}", _PERCENT + " ", _NO_BAR),
    16: (
        "what is the general trend of data from left to right?",
        'Your final answer should be within a few words, such as "increases", "increases then stabilizes".',
    ),
    17: (
        "What is the total number of explicitly labeled ticks across all axes?",
        "Your final answer should be the total number of explicitly labeled ticks across all axes, including the case "
        "when any axis is shared across multiple subplots.",
    ),
    18: (
        "What is the layout of the subplots?",
        'Your final answer should follow "n by m" format, where n is the number of rows and m is the number of '
        "columns.",
        'If the plot does not contain subplots, answer "1 by 1".',
    ),
    19: (
        "What is the number of subplots?",
        "Your final answer should be the total number of subplots in the plot.",
        'If the plot does not contain subplots, answer "1".',
    ),
}
_ABOUT_THE_WHOLE = (18, 19)
_CATEGORIES = {
    "information extraction": (1, 2, 3, 4, 5, 6, 7),
    "enumeration": (8, 9, 13, 14, 15),
    "pattern recognition": (11, 16, 18),
    "counting": (10, 12, 19),
    "compositionality": (17,),
}
_SAME_TERM = "Notation may differ. A number must have the same value."
_RUBRICS = {
    1: "It must be the same title. Notation may differ, and a letter in front such as (a) may be left out.",
    **dict.fromkeys((2, 3, 4, 5, 6, 7), f"It must be the same term. {_SAME_TERM}"),
    **dict.fromkeys((8, 9, 10, 12, 14, 15, 17, 19), "It must be a number of exactly the same value."),
    11: "It must be the same of yes and no.",
    13: f"It must be the same terms in the same order. {_SAME_TERM}",
    16: "It must be the same general trend, in any words.",
    18: "It must be the same number of rows and of columns.",
}
_TEMPLATE = (
    "Question about a chart: {question}\nRight answer: {answer}\nGiven answer: {prediction}\n"
    'Does the given answer come to the right one? {rubric} If the right answer is "Not Applicable", it must say so. An '
    "empty answer is wrong. Reply 1 for yes or 0 for no, and nothing else."
)


def prompt_of(template: int, place: str) -> str:
    """Return the official prompt of a question.

    Args:
        template: Number of the question, 1 to 19.
        place: Words before it, such as `For the current plot, `.
    """
    question, *instructions = _PROMPTS[template]
    first = question if template in _ABOUT_THE_WHOLE else place + question
    return "\n".join([first, *(f"    * {line}" if line else "    " for line in instructions)])


def _place(record: Record) -> str:
    words = record.get("subplot_loc")
    if isinstance(words, str) and words and not is_missing(words):
        return f"For {words}, "
    row, column = int(record["subplot_row"]), int(record["subplot_col"])
    return "For the current plot, " if row == 0 else f"For the subplot at row {row} and column {column}, "


def _ask(record: Record, index: int) -> Question:
    number = index % QUESTIONS + 1
    template, answer = int(record[f"descriptive_q{number}"]), str(record[f"descriptive_a{number}"])
    if template not in _PROMPTS:
        raise DataError(f"CharXiv: record {index // QUESTIONS} has the question {template}, expected 1 to 19")
    target: Target = {
        "question": _PROMPTS[template][0],
        "reference": answer,
        "template": template,
        "category": next(name for name, templates in _CATEGORIES.items() if template in templates),
        "figure": str(record["figure_path"]),
        **chart_groups(record),
    }
    return Question(
        f"{record['figure_path']}#{number}", prompt_of(template, _place(record)), (record["image"],), target
    )


def _summarise_judged(rows: Sequence[Scored]) -> dict[str, float]:
    marked = [replace(row, score=row.marks[0] if row.marks else 0.0) for row in rows]
    return {
        "accuracy": percent(row.score for row in marked),
        **by_group(marked, "category"),
        **groups_of(marked),
        **by_group(marked, "template", "question "),
    }


def _request(prediction: str, target: Target, template: str) -> str:
    return template.format(
        question=target["question"],
        answer=target["reference"],
        prediction=prediction,
        rubric=_RUBRICS[target["template"]],
    )


BENCHMARK = Benchmark(
    name="charxiv_descriptive",
    title="CharXiv (descriptive)",
    source=Source("princeton-nlp/CharXiv", "validation"),
    licence="CC BY-SA 4.0*",
    metric="accuracy by a judge",
    fields=(
        *(f"descriptive_{kind}{number}" for number in range(1, QUESTIONS + 1) for kind in "qa"),
        "subplot_row",
        "subplot_col",
        "figure_path",
        "image",
    ),
    questions=QUESTIONS,
    ask=_ask,
    score=lambda prediction, target: None,
    summarise=lambda rows: {},
    main=None,
    max_new_tokens=256,
    judged=Judged(_request, read_verdict, _summarise_judged, main="accuracy", template=_TEMPLATE),
    units=in_units(lambda row: str(row.target["figure"])),
    note="No rule replaces the judge: without one there are predictions but no score. The official judge is GPT-4o, "
    "which grades five answers to a question at a time.",
)
