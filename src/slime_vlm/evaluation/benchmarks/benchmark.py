"""What a benchmark is: where its records lie, what is asked, and how answers are scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
Target = dict[str, Any]
"""All that scoring needs to know of a record, as plain data: it is stored beside the prediction."""


@dataclass(frozen=True)
class Joined:
    """Another table whose columns belong to the records, such as images that are kept apart from questions.

    Attributes:
        config: its config on the hub, and its file or folder in a local copy.
        key: column of the records.
        other: column of the other table with the same values.
    """

    config: str
    key: str
    other: str


@dataclass(frozen=True)
class Source:
    """Where records lie on the hub.

    Attributes:
        repo: hub id; one of `ORGANISATION` follows `--organisation`.
        split: default split.
        config: config of the data set.
        joined: another table that belongs to the records.
        test_split: split whose answers only a server knows.
    """

    repo: str
    split: str
    config: str | None = None
    joined: Joined | None = None
    test_split: str | None = None


@dataclass(frozen=True)
class Question:
    """One question to the model.

    Attributes:
        id: unique within the task.
        prompt: text after the images.
        images: the record's images, not opened yet: paths, bytes, base64, `{"bytes", "path"}` or PIL images;
            or paths of videos.
        target: what scoring needs.
    """

    id: str
    prompt: str
    images: tuple[Any, ...]
    target: Target


@dataclass(frozen=True)
class Scored:
    """An answer with its score.

    Attributes:
        id: the question's.
        prediction: the answer.
        target: the question's.
        score: 0 to 1; None where nobody here knows the right answer.
        marks: what a judge gave; None without one, or where its reply could not be read.
    """

    id: str
    prediction: str
    target: Target
    score: float | None
    marks: Sequence[float] | None = None


Summarise = Callable[[Sequence[Scored]], dict[str, float]]


@dataclass(frozen=True)
class Judged:
    """How a language model grades answers.

    Attributes:
        request: (prediction, target, template) -> what to ask the judge, or None where rules decide.
        read: (reply, prediction, target) -> marks, or None where the reply makes no sense.
        summarise: the benchmark's own numbers, from rows with marks.
        main: which of them stands for the benchmark.
        template: what is asked, with `{fields}`; ours unless a file replaces it.
        full_marks: the best possible main number.
    """

    request: Callable[[str, Target, str], str | None]
    read: Callable[[str, str, Target], list[float] | None]
    summarise: Summarise
    main: str
    template: str
    full_marks: float = 100.0


@dataclass(frozen=True)
class Submission:
    """The file that a server takes.

    Attributes:
        name: name of the file; `.json` or `.xlsx`.
        entry: (prediction, target) -> one of its entries.
        every: Whether the server wants an entry for every question; those not asked get an empty answer.
    """

    name: str
    entry: Callable[[str, Target], dict[str, Any]]
    every: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: name on the command line.
        title: name in tables.
        source: where its records lie.
        licence: licence of the data as its authors state it; a `*` marks one that was not looked up.
        metric: what is measured, in a few words.
        fields: columns that a record must have.
        ask: (record, place in the split) -> question.
        score: (prediction, target) -> 0 to 1, or None without a known answer.
        summarise: numbers of the whole benchmark from scored answers, in percent unless said otherwise.
        main: which of them stands for the benchmark; None where only a judge can tell.
        max_new_tokens: longest answer.
        full_marks: the best possible main number.
        judged: grading by a language model.
        submission: the file for a server.
        note: what a reader of its numbers must know.
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
    full_marks: float = 100.0
    judged: Judged | None = None
    submission: Submission | None = None
    note: str = field(default="")


def percent(scores: Iterable[float | None]) -> float:
    """Mean of the known scores, times 100; 0 without any."""
    known = [score for score in scores if score is not None]
    return 100 * sum(known) / len(known) if known else 0.0


def grouped(rows: Iterable[Scored], key: str) -> dict[str, list[Scored]]:
    """Rows by what their target says under `key`, in the order of first appearance."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        groups[str(row.target[key])].append(row)
    return dict(groups)


def mean_of_groups(rows: Iterable[Scored], key: str) -> float:
    """Mean over the groups of what each has right in percent, however many rows it has; 0 without any."""
    groups = [percent(row.score for row in group) for group in grouped(rows, key).values()]
    return sum(groups) / len(groups) if groups else 0.0


def accuracy(*keys: str) -> Summarise:
    """A summary with the accuracy over all rows, and by each of the named fields of their targets."""

    def summarise(rows: Sequence[Scored]) -> dict[str, float]:
        result = {"accuracy": percent(row.score for row in rows)}
        for key in keys:
            result |= {name: percent(r.score for r in group) for name, group in sorted(grouped(rows, key).items())}
        return result

    return summarise


def marks_mean(rows: Sequence[Scored]) -> float:
    """Mean of the first marks of judged rows, in percent; a reply that made no sense counts 0."""
    return percent(row.marks[0] if row.marks else 0.0 for row in rows)
