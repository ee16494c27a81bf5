"""Define what a benchmark is: the source of its records, its questions, and the rule that scores answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Record = Mapping[str, Any]
Target = dict[str, Any]
"""Everything that scoring needs to know about a record, as plain data. It is stored with the prediction."""


@dataclass(frozen=True)
class Joined:
    """A second table whose columns are joined to the records, such as images stored apart from questions.

    Attributes:
        config: Config of the table on the hub, and its file or folder in a local copy.
        key: Column of the records.
        other: Column of the second table with the same values.
    """

    config: str
    key: str
    other: str


@dataclass(frozen=True)
class Source:
    """The data set on the hub.

    Attributes:
        repo: Hub id. An id of `records.ORGANISATION` follows `--organisation`.
        split: Default split.
        config: Config of the data set.
        joined: Second table that belongs to the records.
        test_split: Split whose answers only a server knows.
        beside: Files beside the records of a local copy. Every record gets their content under their names: that of a
            `.json` file parsed, that of others as text.
    """

    repo: str
    split: str
    config: str | None = None
    joined: Joined | None = None
    test_split: str | None = None
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One question to the model.

    Attributes:
        id: Unique within the task.
        prompt: Text after the images.
        images: The record's images, not opened yet: paths, bytes, base64, `{"bytes", "path"}` or PIL images, or paths
            of videos.
        target: What scoring needs.
    """

    id: str
    prompt: str
    images: tuple[Any, ...]
    target: Target


@dataclass(frozen=True)
class Scored:
    """An answer with its score.

    Attributes:
        id: Id of the question.
        prediction: The answer.
        target: Target of the question.
        score: 0 to 1. None if the right answer is not known here.
        marks: Grades of a judge. None without one, or if its reply could not be parsed.
    """

    id: str
    prediction: str
    target: Target
    score: float | None
    marks: Sequence[float] | None = None


def each_alone(rows: Sequence[Scored]) -> dict[str, tuple[float, int]]:
    """Return every question with a score as a unit of its own: score and number of questions by id."""
    return {row.id: (row.score, 1) for row in rows if row.score is not None}


def nothing(rows: Sequence[Scored]) -> str:
    """Return that nothing is lacking."""
    return ""


Summarise = Callable[[Sequence[Scored]], dict[str, float]]


@dataclass(frozen=True)
class Judged:
    """How a language model grades answers.

    Attributes:
        request: (prediction, target, template) -> prompt for the judge, or None where rules decide.
        read: (reply, prediction, target) -> marks, or None if the reply cannot be parsed.
        summarise: Rows with marks -> metrics of the benchmark.
        main: Name of the main metric.
        template: Built-in prompt, with `{fields}`. A file of `--judge-prompts` replaces it.
        full_marks: Best possible value of the main metric.
    """

    request: Callable[[str, Target, str], str | None]
    read: Callable[[str, str, Target], list[float] | None]
    summarise: Summarise
    main: str
    template: str
    full_marks: float = 100.0


@dataclass(frozen=True)
class Submission:
    """The file that a server scores.

    Attributes:
        name: Name of the file, ending in `.json` or `.xlsx`.
        entry: (prediction, target) -> one entry of the file.
        every: Whether the server wants an entry for every question. Questions that were not asked get an empty answer.
    """

    name: str
    entry: Callable[[str, Target], dict[str, Any]]
    every: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: Name on the command line.
        title: Name in tables.
        source: The data set on the hub.
        licence: Licence of the data as its authors state it. A `*` marks one that was not looked up.
        metric: Description of the metric in a few words.
        fields: Columns that a record must have.
        ask: (record, index of the question in the split) -> question.
        score: (prediction, target) -> 0 to 1, or None without a known answer.
        summarise: Scored answers -> metrics of the whole benchmark, in percent unless stated otherwise.
        main: Name of the main metric. None if only a judge can score the benchmark.
        max_new_tokens: Maximum length of an answer, in tokens.
        questions: Questions about one record, which have indices one after the other.
        full_marks: Best possible value of the main metric.
        judged: Grading by a language model.
        submission: File for a server that scores.
        note: What a reader of its numbers must know.
        units: Scored answers -> right answers and number of questions of every unit of questions that belong together,
            such as those about one video. A comparison of two models draws units.
        lacking: Scored answers -> in one line, what has to be installed for the numbers that are left out, if any.
        rule: Whose rule scores the answers. Empty if there is only one.
        other_rules: The same benchmark scored by other published rules, by their names for `--rule`.
    """

    name: str
    title: str
    source: Source
    licence: str
    metric: str
    fields: tuple[str, ...]
    ask: Callable[[Record, int], Question]
    score: Callable[[str, Target], float | None]
    summarise: Summarise
    main: str | None
    max_new_tokens: int = 128
    questions: int = 1
    full_marks: float = 100.0
    judged: Judged | None = None
    submission: Submission | None = None
    note: str = ""
    units: Callable[[Sequence[Scored]], Mapping[str, tuple[float, int]]] = each_alone
    lacking: Callable[[Sequence[Scored]], str] = nothing
    rule: str = ""
    other_rules: Mapping[str, Benchmark] = field(default_factory=dict)


def in_units(unit: Callable[[Scored], str]) -> Callable[[Sequence[Scored]], Mapping[str, tuple[float, int]]]:
    """Make units of the questions for which `unit` returns the same name."""

    def units(rows: Sequence[Scored]) -> dict[str, tuple[float, int]]:
        found: dict[str, tuple[float, int]] = {}
        for row in rows:
            if row.score is not None:
                right, number = found.get(unit(row), (0.0, 0))
                found[unit(row)] = (right + row.score, number + 1)
        return found

    return units


def by_rules(default: str, benchmarks: Mapping[str, Benchmark]) -> Benchmark:
    """Return the benchmark of the default rule, which knows those of the others.

    Args:
        default: Name of the default rule.
        benchmarks: A benchmark for each rule by name.
    """
    named = {name: replace(benchmark, rule=name) for name, benchmark in benchmarks.items()}
    others = {name: benchmark for name, benchmark in named.items() if name != default}
    return replace(named[default], other_rules=others)


def percent(scores: Iterable[float | None]) -> float:
    """Return the mean of the known scores, times 100, or 0 without any."""
    known = [score for score in scores if score is not None]
    return 100 * sum(known) / len(known) if known else 0.0


def grouped(rows: Iterable[Scored], key: str) -> dict[str, list[Scored]]:
    """Return rows grouped by the value of a field of their target, in the order of first appearance."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        groups[str(row.target[key])].append(row)
    return dict(groups)


def mean_of_groups(rows: Iterable[Scored], key: str) -> float:
    """Return the unweighted mean of the groups' accuracies in percent, or 0 without any group."""
    groups = [percent(row.score for row in group) for group in grouped(rows, key).values()]
    return sum(groups) / len(groups) if groups else 0.0


def by_group(rows: Iterable[Scored], key: str, prefix: str = "") -> dict[str, float]:
    """Return the accuracy of each group in percent, under the group's name after a prefix, in alphabetical order.

    Rows without the field, such as those of an earlier version, are in no group.
    """
    groups = grouped([row for row in rows if key in row.target], key)
    return {f"{prefix}{name}": percent(row.score for row in group) for name, group in sorted(groups.items())}


def accuracy(*keys: str) -> Summarise:
    """Make a summary with the accuracy over all rows, and by each of the named fields of their targets."""

    def summarise(rows: Sequence[Scored]) -> dict[str, float]:
        result = {"accuracy": percent(row.score for row in rows)}
        for key in keys:
            result |= by_group(rows, key)
        return result

    return summarise


def marks_mean(rows: Sequence[Scored]) -> float:
    """Return the mean of the first marks of judged rows, in percent. A reply that could not be parsed counts 0."""
    return percent(row.marks[0] if row.marks else 0.0 for row in rows)
