"""Score stored predictions, without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slime_vlm.errors import ConfigError, DataError
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Benchmark, Judged, Scored, Task
from slime_vlm.evaluation.benchmarks.benchmark import percent
from slime_vlm.evaluation.judge import Judge
from slime_vlm.evaluation.predictions import FILE, Row, read_rows

JUDGEMENTS = "judgements.jsonl"

# Of the tries at a reply that can be read.
_TEMPERATURES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class TaskResult:
    """A task's predictions and their scores.

    Attributes:
        task: The task.
        rows: The predictions, with scores by the current rules.
        metrics: Numbers by name.
        main: Name of the main metric. None if the benchmark cannot be scored here.
        full_marks: Best possible value of the main metric.
        judge: The grading model and the origin of its prompt. None if no model graded.
        lacking: What has to be installed for the numbers that are left out. Empty if none is left out for that reason.
    """

    task: Task
    rows: list[Row]
    metrics: dict[str, float]
    main: str | None
    full_marks: float
    judge: dict[str, str] | None = None
    lacking: str = ""

    @property
    def score(self) -> float | None:
        """Value of the main metric."""
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
        task: The task.
        rows: The predictions.
        judge: Language model that grades. Benchmarks that need none do not ask it.
        templates: Folder of prompts for the judge, such as `mm_vet.txt`, to use instead of the built-in ones.
        folder: Folder in which to store the judge's replies, so that nothing is asked twice.

    Raises:
        DataError: A prediction lacks a field that its benchmark scores by.
        ConfigError: The judge does not answer, or its prompt has unknown fields.
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
            main = benchmark.main if benchmark.main in metrics else None
            return TaskResult(task, kept, metrics, main, benchmark.full_marks, lacking=benchmark.lacking(scored))
        template, whose = _template(task, benchmark.judged, templates)
        replies = _Replies(None if folder is None else folder / JUDGEMENTS)
        marked = [_grade(one, benchmark.judged, judge, template, replies) for one in scored]
        metrics = benchmark.judged.summarise(marked)
        if metrics:
            # A reply that stays unreadable counts as no mark.
            metrics["unreadable grades"] = percent(float(one.marks is None) for one in marked)
    except (LookupError, TypeError) as error:
        raise DataError(
            f"{task.name}: a prediction lacks a field that it is scored by ({error!r}); "
            "expected a file that `slime eval run` wrote"
        ) from error
    described = {"model": judge.model, "prompt": whose}
    return TaskResult(task, kept, metrics, benchmark.judged.main, benchmark.judged.full_marks, described)


def score_files(
    paths: Iterable[Path], judge: Judge | None = None, templates: Path | None = None, rule: str | None = None
) -> list[TaskResult]:
    """Score files of predictions, or all predictions of a run folder.

    Args:
        paths: The files and folders.
        judge: Language model that grades.
        templates: Folder of prompts for the judge.
        rule: Name of a published rule, for benchmarks that have several. Other benchmarks keep their only rule.

    Raises:
        DataError: A file is missing, does not hold predictions, or belongs to an unknown task.
        ConfigError: None of the benchmarks knows the rule.
    """
    found: dict[tuple[str, str], tuple[Path, dict[str, Row]]] = {}
    for path in paths:
        for file in _files(path):
            for row in read_rows(file):
                if row["task"] not in BENCHMARKS:
                    raise DataError(f"{file}: '{row['task']}' is not a benchmark; `slime eval tasks` lists them")
                key = (row["task"], str(row.get("split") or BENCHMARKS[row["task"]].source.split))
                found.setdefault(key, (file.parent, {}))[1][str(row["id"])] = row
    if not found:
        raise DataError(f"no predictions in {', '.join(map(str, paths))}; expected files that `slime eval run` wrote")
    results = []
    benchmarks = {name: _by_rule(BENCHMARKS[name], rule) for name, _ in found}
    if rule is not None and not any(benchmark.rule == rule for benchmark in benchmarks.values()):
        known = sorted({other for name in benchmarks for other in BENCHMARKS[name].other_rules})
        raise ConfigError(
            f"--rule {rule}: none of {', '.join(benchmarks)} has it, known are {', '.join(known) or 'none'}"
        )
    for (name, split), (folder, rows) in found.items():
        ordered = sorted(rows.values(), key=lambda row: row.get("place", 0))
        results.append(score_task(Task(benchmarks[name], split), ordered, judge, templates, folder))
    return results


def _by_rule(benchmark: Benchmark, rule: str | None) -> Benchmark:
    return benchmark if rule is None else benchmark.other_rules.get(rule, benchmark)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    # An unfinished run has part files that are not merged yet.
    found = sorted([*path.glob(f"**/{FILE}"), *path.glob("**/predictions.part*.jsonl")])
    if not found:
        raise DataError(f"{path}: neither a file of predictions nor a folder that holds one")
    return found


class _Replies:
    """Cache a judge's replies by request and try, in memory and in a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self._known[row["asked"]] = row["reply"]
                # The last line may have been cut off. Its request is sent again.
                except (ValueError, LookupError, TypeError):
                    continue

    def ask(self, judge: Judge, request: str, name: str, number: int) -> str:
        key = f"{judge.model}\n{request}" + (f"\ntry {number}" if number else "")
        asked = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        if asked not in self._known:
            self._known[asked] = judge.ask(request, _TEMPERATURES[number])
            if self._path is not None:
                row = {"id": name, "judge": judge.model, "asked": asked, "reply": self._known[asked]}
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        return self._known[asked]


def _grade(one: Scored, judged: Judged, judge: Judge, template: str, replies: _Replies) -> Scored:
    request = judged.request(one.prediction, one.target, template)
    # Without a request, rules have decided.
    marks: Sequence[float] | None = None if one.score is None else [one.score]
    if request is not None:
        # The same request once more would get the same reply, so the temperature rises.
        for number in range(len(_TEMPERATURES)):
            marks = judged.read(replies.ask(judge, request, one.id, number), one.prediction, one.target)
            if marks is not None:
                break
    return Scored(one.id, one.prediction, one.target, one.score, marks)


def _template(task: Task, judged: Judged, templates: Path | None) -> tuple[str, str]:
    path = None if templates is None else templates / f"{task.benchmark.name}.txt"
    if path is None or not path.is_file():
        return judged.template, "slime-vlm"
    template = path.read_text(encoding="utf-8")
    fields = _fields(judged.template)
    unknown = _fields(template, str(path)) - fields
    if unknown:
        raise ConfigError(f"{path}: {{{unknown.pop()}}} is not a known field, expected {', '.join(sorted(fields))}")
    return template, path.name


def _fields(template: str, name: str = "") -> set[str]:
    from string import Formatter

    try:
        return {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ConfigError(f"{name}: {error}; double the braces that do not enclose a field") from None


def describe(result: TaskResult) -> Mapping[str, Any]:
    """Return a result as plain data, for `results.json`."""
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
        "rule": benchmark.rule,
        "main": result.main,
        "score": result.score,
        "full_marks": result.full_marks,
        "metrics": result.metrics,
        "judge": result.judge,
        "lacking": result.lacking,
        "tokens": {name: _mean([row["tokens"][name] for row in rows if "tokens" in row]) for name in names},
        "seconds": _mean([row["seconds"] for row in rows if "seconds" in row]),
        "note": benchmark.note,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
