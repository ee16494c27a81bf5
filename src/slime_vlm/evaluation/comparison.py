"""Compare two runs on the questions that both were asked: intervals, and whether the difference may be chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks import Scored
from slime_vlm.evaluation.scoring import TaskResult, score_files
from slime_vlm.evaluation.statistics import accuracy, accuracy_interval, difference_interval, mcnemar

_HEAD = "| task | questions | A, share right | B, share right | B - A | only A right | only B right | McNemar p |"


@dataclass(frozen=True)
class Comparison:
    """Two runs on one task, with 95% intervals by the bootstrap over units of questions.

    Attributes:
        task: Name of the task.
        questions: Number of questions that both answered.
        units: Number of units that are drawn: questions, or questions that belong together.
        first: Share of right answers of the first run, and its interval.
        second: The same for the second run.
        difference: Second minus first, and its interval.
        only_first: Number of units that only the first has right. None if units may be half right.
        only_second: Number of units that only the second has right. None if units may be half right.
        p_value: Of McNemar's exact test over these units. None if units may be half right.
    """

    task: str
    questions: int
    units: int
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    difference: tuple[float, float, float]
    only_first: int | None
    only_second: int | None
    p_value: float | None


def compare_runs(
    first: Path, second: Path, rule: str | None = None, report: Callable[[str], None] | None = None
) -> list[Comparison]:
    """Compare two run folders or files of predictions, task by task, scored by rule.

    Args:
        first: Predictions of one model.
        second: Predictions of another one, or of the same with other settings.
        rule: Name of a published rule, see `score_files`.
        report: Called with a line for every task, and for the questions of a task, that only one of them has.

    Raises:
        DataError: The two share no question with a score, or a question that they share has other answers.
    """
    results = [{one.task.name: one for one in score_files([path], rule=rule)} for path in (first, second)]
    shared = [name for name in results[0] if name in results[1]]
    found = [_compare(results[0][name], results[1][name]) for name in shared]
    if report is not None:
        for path, own in zip((first, second), results, strict=True):
            for name in sorted(own.keys() - shared):
                report(f"{name} is left out: only {path} has it")
        for name, one in zip(shared, found, strict=True):
            numbers = [len(tasks[name].rows) for tasks in results]
            if one is None:
                report(f"{name} is left out: it shares no question that a rule scores")
            elif max(numbers) > one.questions:
                report(f"{name}: {one.questions} of {numbers[0]} and {numbers[1]} questions are compared")
    comparisons = [one for one in found if one is not None]
    if not comparisons:
        names = [", ".join(tasks) for tasks in results]
        raise DataError(
            f"{first} ({names[0]}) and {second} ({names[1]}) share no question that a rule scores; "
            "expected predictions for the same task"
        )
    return comparisons


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Return comparisons as a Markdown table, in percent."""
    lines = [_HEAD, "|" + " --- |" * (_HEAD.count("|") - 1)]
    for one in comparisons:
        counts = ["–"] * 3
        if one.p_value is not None:
            counts = [str(one.only_first), str(one.only_second), f"{one.p_value:.2g}"]
        number = (
            str(one.questions)
            if one.units == one.questions
            else f"{one.questions} in {one.units} unit{'s' * (one.units != 1)}"
        )
        values = [_interval(one.first), _interval(one.second), _interval(one.difference, "+")]
        lines.append(f"| {' | '.join([one.task, number, *values, *counts])} |")
    return "\n".join(lines)


def described(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return comparisons as plain data."""
    return [asdict(one) for one in comparisons]


def _compare(first: TaskResult, second: TaskResult) -> Comparison | None:
    rows = [{str(row["id"]): row for row in result.rows if row["score"] is not None} for result in (first, second)]
    ids = [name for name in rows[0] if name in rows[1]]
    # Without an official score by rule, such as key phrases found, nothing is compared.
    if not ids or first.main is None:
        return None
    for name in ids:
        if rows[0][name].get("target", {}).get("answer") != rows[1][name].get("target", {}).get("answer"):
            raise DataError(f"{first.task.name}: question {name} has another right answer in the second run")
    units = [first.task.benchmark.units([_scored(table[name]) for name in ids]) for table in rows]
    names = list(units[0])
    tallies = [[one[name] for name in names] for one in units]
    pairs = [(a[0], b[0], a[1]) for a, b in zip(*tallies, strict=True)]
    value, low, high = difference_interval([(b, a, number) for a, b, number in pairs])
    whole = all(number == 1 and {a, b} <= {0.0, 1.0} for a, b, number in pairs)
    only = [sum(a > b for a, b, _ in pairs), sum(b > a for a, b, _ in pairs)] if whole else [None, None]
    return Comparison(
        task=first.task.name,
        questions=len(ids),
        units=len(names),
        first=(accuracy(tallies[0]), *accuracy_interval(tallies[0])),
        second=(accuracy(tallies[1]), *accuracy_interval(tallies[1])),
        difference=(value, low, high),
        only_first=only[0],
        only_second=only[1],
        p_value=mcnemar(only[0], only[1]) if only[0] is not None and only[1] is not None else None,
    )


def _scored(row: Mapping[str, Any]) -> Scored:
    return Scored(str(row["id"]), row["prediction"], row["target"], row["score"])


def _interval(values: tuple[float, float, float], sign: str = "") -> str:
    value, low, high = (f"{100 * one:{sign}.1f}" for one in values)
    return f"{value} [{low}, {high}]"
