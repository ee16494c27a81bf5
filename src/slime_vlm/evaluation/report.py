"""Write the results of a run: `results.json`, `results.md` and the plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slime_vlm import __version__
from slime_vlm.evaluation.scoring import TaskResult, describe

_HEAD = "| task | split | metric | score | questions | image tokens | kept | s/question |"


def write_report(results: Sequence[TaskResult], out: Path, settings: Mapping[str, Any]) -> None:
    """Write results.json, results.md and the plots to a folder.

    Args:
        results: The results of all tasks.
        out: The folder.
        settings: The model and the other settings of the run. Empty for predictions of unknown origin.
    """
    from slime_vlm.evaluation.plots import draw_plots

    out.mkdir(parents=True, exist_ok=True)
    content = {
        "slime_vlm": __version__,
        "settings": dict(settings),
        "tasks": {result.task.name: describe(result) for result in results},
    }
    _write(out / "results.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    model = f"Model {settings['model']}. " if "model" in settings else ""
    parts = list(filter(None, (_part(result, settings.get("limits", {}).get(result.task.name)) for result in results)))
    limit = f"Not all questions: {', '.join(parts)}. " if parts else ""
    text = f"# Results\n\n{model}{limit}\n\n{table(results)}\n\n{details(results)}"
    _write(out / "results.md", text)
    draw_plots(results, out)


def table(results: Sequence[TaskResult]) -> str:
    """Return a Markdown table with one line per task. A task without a score has a dash.

    Below it stands what has to be installed for numbers that are left out.
    """
    lines = [_HEAD, "|" + " --- |" * (_HEAD.count("|") - 1)]
    for result in results:
        data = describe(result)
        tokens = data["tokens"]
        images = tokens.get("global", 0) + tokens.get("local", 0)
        kept = tokens.get("global", 0) + tokens.get("kept", 0)
        score = "–" if result.score is None else f"{result.score:.2f}"
        cells = [
            result.task.benchmark.title,
            result.task.split,
            result.main or _missing(result),
            score,
            str(len(result.rows)),
            f"{images:.0f}",
            f"{kept:.0f}",
            f"{data['seconds']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lacking = [f"{result.task.benchmark.title}: {result.lacking}" for result in results if result.lacking]
    return "\n".join(lines) + "".join(f"\n\n{line}" for line in lacking)


def details(results: Sequence[TaskResult]) -> str:
    """Return every metric of every task as Markdown, with the notes that its reader needs."""
    parts = []
    for result in results:
        numbers = "\n".join(f"- {name}: {value:.2f}" for name, value in result.metrics.items())
        judge = f"Graded by {result.judge['model']}, prompt of {result.judge['prompt']}." if result.judge else ""
        rule = f"Scored by the rule of {result.task.benchmark.rule}." if result.task.benchmark.rule else ""
        notes = " ".join(filter(None, (result.task.benchmark.note, rule, judge)))
        body = "\n\n".join(filter(None, (notes, numbers)))
        parts.append(f"## {result.task.benchmark.title} ({result.task.split})\n\n{body}\n")
    return "\n".join(parts)


def _part(result: TaskResult, limit: int | None) -> str:
    """Return which questions were asked, or nothing if they may be all."""
    title, number = result.task.benchmark.title, len(result.rows)
    places = sorted(int(row.get("place", 0)) for row in result.rows)
    if places and (places[0] > 0 or places[-1] >= number > 1):
        return f"{number} of {title}, from number {places[0] + 1} on"
    # An earlier run into the same folder may have asked more questions.
    return f"the first {limit} of {title}" if limit is not None and number <= limit else ""


def _missing(result: TaskResult) -> str:
    if result.task.benchmark.main is None:
        return "needs a judge (--judge-url)"
    if result.lacking:
        return "needs packages (see below)"
    return "scored by the server" if result.task.benchmark.submission else "no answers known"


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8", errors="replace")
    part.replace(path)
