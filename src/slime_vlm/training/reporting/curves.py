"""The curves of a stage as one image: loss, learning rate, throughput, and use of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Panel = Callable[[Axes], None]


def draw_curves(history: Sequence[Mapping[str, Any]], title: str, path: Path) -> Path | None:
    """Draw the logs of a stage.

    Args:
        history: Trainer's `log_history`. Entries without a loss are left out.
        title: Title of the figure.
        path: PNG file to write.

    Returns:
        The file; None if there is nothing to draw.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    # pyplot would look for a display, and would share state with other figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [entry for entry in history if "loss" in entry]
    if not points:
        return None
    figure = Figure(figsize=(10, 6.5))
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels: list[Panel] = [
        lambda axes: _line(axes, points, "loss", "loss (mean since the last point)"),
        lambda axes: _line(axes, points, "learning_rate", "learning rate (first group of parameters)"),
        lambda axes: _line(axes, points, "tokens_per_s", "tokens a second (language model, all processes)"),
        lambda axes: _shares(axes, points),
    ]
    for axes, fill in zip(figure.subplots(2, 2).flat, panels, strict=True):
        fill(axes)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    # The four panels have fixed positions. matplotlib's layout engine would draw everything twice to find them.
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.08, top=0.9, wspace=0.2, hspace=0.35)
    figure.savefig(path, dpi=120)
    return path


def _line(axes: Axes, points: Sequence[Mapping[str, Any]], key: str, title: str) -> None:
    seen = [(point["step"], point[key]) for point in points if key in point]
    if seen:
        axes.plot(*zip(*seen, strict=True), **_style(len(seen)), color="#4477aa")
        axes.set_ylim(bottom=min(0.0, min(value for _, value in seen)))
    axes.set_title(title, fontsize=10)


def _shares(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    for key, label, colour in (
        ("mfu", "model FLOPs utilisation", "#4477aa"),
        ("data_wait", "time spent waiting for data", "#ee6677"),
    ):
        seen = [(point["step"], 100 * point[key]) for point in points if key in point]
        if seen:
            axes.plot(*zip(*seen, strict=True), **_style(len(seen)), color=colour, label=label)
    axes.set_ylim(-3, 103)
    axes.set_title("use of the machine, %", fontsize=10)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)


def _style(points: int) -> dict[str, Any]:
    # A single point does not make a line.
    return {"linewidth": 1.3, "marker": "o" if points < 40 else None, "markersize": 3}
