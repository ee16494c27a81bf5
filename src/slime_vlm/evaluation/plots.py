"""Plot a run: score by task, accuracy against image tokens, accuracy by image size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slime_vlm.evaluation.predictions import Row
from slime_vlm.evaluation.scoring import TaskResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDES = (336, 672, 1344, 2688)
_GROUPS = 5
_FEWEST = 5
_MARKERS = "osD^vP*X<>d"


def draw_plots(results: Sequence[TaskResult], out: Path) -> list[Path]:
    """Draw the plots for which there is data. Tasks without known answers are left out.

    Returns:
        The files that were written.
    """
    ranked = [result for result in results if result.score is not None]
    counted = [result for result in results if _rows_with("tokens", result)]
    sized = [result for result in results if _rows_with("image_sizes", result)]
    drawn = []
    if ranked:
        drawn.append(_draw(out / "score_by_task.png", lambda axes: _scores(axes, ranked), 0.35 * len(ranked) + 1.6))
    # The legend has one line per task.
    height = max(4.5, 0.2 * len(results) + 1)
    if counted:
        drawn.append(_draw(out / "accuracy_against_tokens.png", lambda axes: _tokens(axes, counted), height))
    if sized:
        drawn.append(_draw(out / "accuracy_by_image_size.png", lambda axes: _sizes(axes, sized), height))
    return drawn


def _rows_with(field: str, result: TaskResult) -> list[Row]:
    return [row for row in result.rows if row["score"] is not None and row.get(field)]


def _draw(path: Path, fill: Callable[[Axes], None], height: float) -> Path:
    # Without pyplot, matplotlib needs no display and shares no state between figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    fill(axes)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    return path


def _scores(axes: Axes, results: Sequence[TaskResult]) -> None:
    shares = [100 * (result.score or 0.0) / result.full_marks for result in results]
    names = [f"{result.task.name}\n{result.main}" for result in results]
    bars = axes.barh(names, shares, color="#4477aa")
    labels = [
        f"{result.score:.1f}" + (f" of {result.full_marks:.0f}" if result.full_marks != 100 else "")
        for result in results
    ]
    axes.bar_label(bars, labels, padding=3)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xlabel="% of full marks", title="Score by task")
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis="y", labelsize=8)


def _tokens(axes: Axes, results: Sequence[TaskResult]) -> None:
    for number, result in enumerate(results):
        rows = _rows_with("tokens", result)
        tokens = np.array([row["tokens"]["global"] + row["tokens"]["kept"] for row in rows], dtype=float)
        scores = 100 * np.array([row["score"] for row in rows])
        groups = _equal_groups(tokens)
        means = [(tokens[group].mean(), scores[group].mean()) for group in groups]
        axes.plot(*zip(*means, strict=True), **_style(number), label=f"{result.task.name} ({len(rows)})")
    axes.set(xlabel="image tokens (global and kept local ones), mean of a group", ylabel="mean score of a question, %")
    axes.set(ylim=(-4, 104), title=f"Accuracy against image tokens, up to {_GROUPS} groups of equal size per task")
    _legend(axes)


def _sizes(axes: Axes, results: Sequence[TaskResult]) -> None:
    bounds = [0, *_SIDES]
    names = [f"{low + 1}-{high}" for low, high in zip(bounds, _SIDES, strict=False)] + [f"> {_SIDES[-1]}"]
    for number, result in enumerate(results):
        rows = _rows_with("image_sizes", result)
        bins = np.searchsorted(_SIDES, [_longest_side(row) for row in rows])
        scores = 100 * np.array([row["score"] for row in rows])
        used = np.unique(bins)
        means = [scores[bins == one].mean() for one in used]
        axes.plot(used, means, **_style(number), label=f"{result.task.name} ({len(rows)})")
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="longest side of the image, pixels", ylabel="mean score of a question, %", ylim=(-4, 104))
    axes.set(xlim=(-0.5, len(names) - 0.5), title="Accuracy by image size")
    _legend(axes)


def _equal_groups(values: np.ndarray) -> list[np.ndarray]:
    """Return the indices of values in groups of about equal size, ascending. Equal values share a group."""
    order = np.argsort(values, kind="stable")
    count = max(1, min(_GROUPS, len(values) // _FEWEST))
    bounds = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1])
    group_of = np.searchsorted(bounds, values[order], side="right")
    return [order[group_of == group] for group in np.unique(group_of)]


def _longest_side(row: Row) -> int:
    return max(max(size) for size in row["image_sizes"])


def _style(number: int) -> dict[str, Any]:
    # There are ten colours. Further tasks get other lines and markers.
    line = ("-", "--", ":")[number // 10 % 3]
    return {"color": f"C{number % 10}", "linestyle": line, "marker": _MARKERS[number % len(_MARKERS)], "markersize": 5}


def _legend(axes: Axes) -> None:
    axes.grid(axis="y", alpha=0.3)
    axes.legend(title="task (questions)", loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
