"""Collect the results of every task of a run folder: those of this command, and those of earlier ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slime_vlm.evaluation.benchmarks import find_tasks
from slime_vlm.evaluation.predictions import FILE, Row, read_rows
from slime_vlm.evaluation.run_folder import read_run
from slime_vlm.evaluation.scoring import TaskResult, score_task


def folder_results(out: Path, fresh: Sequence[TaskResult]) -> list[TaskResult]:
    """Return the results of every task of a folder, in the order in which the tasks joined it, then all other new ones.

    An earlier result is taken from `results.json` with its judge's grades, so that no judge is asked again. If its
    predictions have changed since, it is scored again by rule. A task that was started but not finished has no result.

    Args:
        out: Folder of the run.
        fresh: The results that this command has computed.

    Raises:
        DataError: Earlier predictions cannot be read.
    """
    of_command = {result.task.name: result for result in fresh}
    reported = _report(out, "tasks")
    results = []
    joined = read_run(out).get("tasks", {})
    for name, origin in joined.items():
        file = out / name / FILE
        if name in of_command:
            results.append(of_command[name])
        elif file.is_file():
            rows = list(read_rows(file))
            results.append(_earlier(origin, rows, reported.get(name, {})))
    return [*results, *(result for result in fresh if result.task.name not in joined)]


def known_settings(out: Path) -> dict[str, Any]:
    """Return the settings of a folder's predictions: from its report, else from its run.json, else none."""
    return dict(_report(out, "settings") or read_run(out).get("settings", {}))


def _earlier(origin: Mapping[str, Any], rows: list[Row], entry: Mapping[str, Any]) -> TaskResult:
    benchmark = str(origin["benchmark"])
    # The report names the hub copy that was used, followed by its config.
    copy = str(entry.get("source", "")).partition(" (")[0]
    (task,) = find_tasks(f"{benchmark}:{origin['split']}", {benchmark: copy} if copy else None)
    if entry.get("questions") != len(rows):
        return score_task(task, rows)
    lacking = entry.get("lacking", "")
    return TaskResult(task, rows, entry["metrics"], entry["main"], entry["full_marks"], entry["judge"], lacking)


def _report(out: Path, part: str) -> Mapping[str, Any]:
    """Return the `settings` or `tasks` of `results.json`, or nothing if the file is missing or not a report."""
    try:
        found = json.loads((out / "results.json").read_text(encoding="utf-8"))[part]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
