"""From stored predictions to numbers; no model is needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slime_vlm.errors import DataError, InputError
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Judged, Scored, Task
from slime_vlm.evaluation.judge import Judge
from slime_vlm.evaluation.predictions import FILE, Row, read_rows

JUDGEMENTS = "judgements.jsonl"


@dataclass(frozen=True)
class TaskResult:
    """A task's predictions and what they come to.

    Attributes:
        task: the task.
        rows: the predictions, with scores by today's rules.
        metrics: numbers by name.
        main: which of them stands for the benchmark; None where nothing here can tell.
        full_marks: the best possible main number.
        judge: model that graded, and whose prompt it got; None without one.
    """

    task: Task
    rows: list[Row]
    metrics: dict[str, float]
    main: str | None
    full_marks: float
    judge: dict[str, str] | None = None

    @property
    def score(self) -> float | None:
        """The main number."""
        return None if self.main is None else self.metrics.get(self.main)


def score_task(
    task: Task,
    rows: Sequence[Row],
    judge: Judge | None = None,
    templates: Path | None = None,
    folder: Path | None = None,
) -> TaskResult:
    """Score the predictions of a task.

    Args:
        task: what they belong to.
        rows: the predictions.
        judge: who grades; benchmarks that need none do not ask.
        templates: folder of prompts for the judge, `mm_vet.txt`, in place of ours.
        folder: where the judge's replies are kept, so that nothing is asked twice.

    Raises:
        DataError: a prediction lacks what its benchmark scores by.
        InputError: the judge does not answer, or a prompt for it has other fields.
    """
    benchmark = task.benchmark
    try:
        scored = [
            Scored(str(row["id"]), row["prediction"], row["target"], benchmark.score(row["prediction"], row["target"]))
            for row in rows
        ]
        kept = [{**row, "score": one.score} for row, one in zip(rows, scored, strict=True)]
        if judge is None or benchmark.judged is None:
            metrics = benchmark.summarise(scored) if any(one.score is not None for one in scored) else {}
            main = benchmark.main if metrics else None
            return TaskResult(task, kept, metrics, main, benchmark.full_marks)
        template, whose = _template(task, benchmark.judged, templates)
        replies = _Replies(None if folder is None else folder / JUDGEMENTS)
        marked = [_grade(one, benchmark.judged, judge, template, replies) for one in scored]
        metrics = benchmark.judged.summarise(marked)
    except (LookupError, TypeError) as error:
        raise DataError(
            f"{task.name}: a prediction lacks what it is scored by ({error!r}); "
            "expected a file that `slime eval run` wrote"
        ) from error
    described = {"model": judge.model, "prompt": whose}
    return TaskResult(task, kept, metrics, benchmark.judged.main, benchmark.judged.full_marks, described)


def score_files(paths: Iterable[Path], judge: Judge | None = None, templates: Path | None = None) -> list[TaskResult]:
    """Score files of predictions, or all of a run's folder.

    Raises:
        DataError: a file is missing, is none of predictions, or belongs to an unknown task.
    """
    found: dict[tuple[str, str], tuple[Path, dict[str, Row]]] = {}
    for path in paths:
        for file in _files(path):
            for row in read_rows(file):
                if row["task"] not in BENCHMARKS:
                    raise DataError(f"{file}: '{row['task']}' is no task; `slime eval tasks` lists them")
                key = (row["task"], str(row.get("split") or BENCHMARKS[row["task"]].source.split))
                found.setdefault(key, (file.parent, {}))[1][str(row["id"])] = row
    if not found:
        raise DataError(f"no prediction in {', '.join(map(str, paths))}; expected what `slime eval run` wrote")
    results = []
    for (name, split), (folder, rows) in found.items():
        ordered = sorted(rows.values(), key=lambda row: row.get("place", 0))
        results.append(score_task(Task(BENCHMARKS[name], split), ordered, judge, templates, folder))
    return results


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    # Unmerged parts of a run that is not finished count as well.
    found = sorted([*path.glob(f"**/{FILE}"), *path.glob("**/predictions.part*.jsonl")])
    if not found:
        raise DataError(f"{path}: neither a file of predictions nor a folder that holds one")
    return found


class _Replies:
    """A judge's replies by what it was asked, in memory and in a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self._known[row["asked"]] = row["reply"]
                # The last line may have been cut off; what it held is asked again.
                except (ValueError, LookupError, TypeError):
                    continue

    def ask(self, judge: Judge, request: str, name: str) -> str:
        asked = hashlib.sha256(f"{judge.model}\n{request}".encode("utf-8", "surrogatepass")).hexdigest()[:24]
        if asked not in self._known:
            self._known[asked] = judge.ask(request)
            if self._path is not None:
                row = {"id": name, "judge": judge.model, "asked": asked, "reply": self._known[asked]}
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        return self._known[asked]


def _grade(one: Scored, judged: Judged, judge: Judge, template: str, replies: _Replies) -> Scored:
    request = judged.request(one.prediction, one.target, template)
    # Without a request rules have decided.
    marks: Sequence[float] | None = None if one.score is None else [one.score]
    if request is not None:
        marks = judged.read(replies.ask(judge, request, one.id), one.prediction, one.target)
    return Scored(one.id, one.prediction, one.target, one.score, marks)


def _template(task: Task, judged: Judged, templates: Path | None) -> tuple[str, str]:
    path = None if templates is None else templates / f"{task.benchmark.name}.txt"
    if path is None or not path.is_file():
        return judged.template, "slime-vlm"
    template = path.read_text(encoding="utf-8")
    fields = _fields(judged.template)
    unknown = _fields(template, str(path)) - fields
    if unknown:
        raise InputError(f"{path}: {{{unknown.pop()}}} is no field, expected {', '.join(sorted(fields))}")
    return template, path.name


def _fields(template: str, name: str = "") -> set[str]:
    from string import Formatter

    try:
        return {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise InputError(f"{name}: {error}; write braces that are no field twice") from None


def describe(result: TaskResult) -> Mapping[str, Any]:
    """A result as plain data, for `results.json`."""
    benchmark, rows = result.task.benchmark, result.rows
    source = benchmark.source
    names = sorted({name for row in rows for name in row.get("tokens", {})})
    return {
        "title": benchmark.title,
        "source": source.repo + (f" ({source.config})" if source.config else ""),
        "split": result.task.split,
        "licence": benchmark.licence,
        "questions": len(rows),
        "metric": benchmark.metric,
        "main": result.main,
        "score": result.score,
        "full_marks": result.full_marks,
        "metrics": result.metrics,
        "judge": result.judge,
        "tokens": {name: _mean([row["tokens"][name] for row in rows if "tokens" in row]) for name in names},
        "seconds": _mean([row["seconds"] for row in rows if "seconds" in row]),
        "note": benchmark.note,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
