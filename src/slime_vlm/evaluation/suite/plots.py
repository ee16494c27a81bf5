"""Three plots of the suite: accuracy against tokens, seconds against tokens, accuracy against the picture's side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slime_vlm.evaluation.suite.settings import REFERENCE
from slime_vlm.evaluation.suite.summary import Summary, of_group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES = (("top-p", "top-p", "o"), ("share", "share of the best", "s"), ("budget", "fixed budget", "^"))
_POINTS = {
    "random as many": ("random tokens", "x"),
    "prompt as many": ("chosen by the prompt", "+"),
    "global only": ("global only", "D"),
    "local only": ("local only", "v"),
}


def draw_plots(summaries: Sequence[Summary], out: Path) -> list[Path]:
    """Draw what there is to draw.

    Returns:
        The files.
    """
    drawn = []
    if any(len(_on_curve(summaries, group)) > 1 for group, *_ in _CURVES):
        drawn.append(_draw(out / "accuracy_against_tokens.png", lambda axes: _accuracy(axes, summaries)))
        drawn.append(_draw(out / "seconds_against_tokens.png", lambda axes: _seconds(axes, summaries)))
    if len(of_group(summaries, "resized")) > 1:
        drawn.append(_draw(out / "accuracy_against_side.png", lambda axes: _sides(axes, summaries)))
    return drawn


def _draw(path: Path, fill: Callable[[Axes], None]) -> Path:
    # Without pyplot: no display is looked for, and no state is shared with other figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    fill(axes)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    figure.savefig(path, dpi=120)
    return path


def _accuracy(axes: Axes, summaries: Sequence[Summary]) -> None:
    for number, (group, label, marker) in enumerate(_CURVES):
        points = _on_curve(summaries, group)
        if len(points) > 1:
            _errors(axes, points, [_tokens(point) for point in points], label, marker, f"C{number}", "-")
    for number, (name, (label, marker)) in enumerate(_POINTS.items(), start=len(_CURVES)):
        points = [summary for summary in summaries if summary.setting.name == name]
        if points:
            _errors(axes, points, [_tokens(point) for point in points], label, marker, f"C{number}", "")
    _mark_reference(axes, summaries)
    _mark_ocr(axes, summaries)
    axes.set(
        ylim=(-0.03, 1.03), ylabel="exact match, with 95% interval", xlabel="image tokens read, mean of a question"
    )
    axes.set_xlim(left=0)
    axes.set_title("Accuracy against image tokens", fontsize=11)


def _seconds(axes: Axes, summaries: Sequence[Summary]) -> None:
    for number, (group, label, marker) in enumerate(_CURVES):
        points = _on_curve(summaries, group)
        if len(points) > 1:
            axes.plot(
                [_tokens(point) for point in points],
                [point.answer_seconds for point in points],
                color=f"C{number}",
                marker=marker,
                markersize=5,
                label=label,
            )
    for number, (name, (label, marker)) in enumerate(_POINTS.items(), start=len(_CURVES)):
        for point in (summary for summary in summaries if summary.setting.name == name):
            axes.plot(_tokens(point), point.answer_seconds, f"C{number}{marker}", markersize=7, label=label)
    axes.set(ylabel="seconds a question, picture encoded", xlabel="image tokens read, mean of a question")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_title("Seconds against image tokens", fontsize=11)


def _sides(axes: Axes, summaries: Sequence[Summary]) -> None:
    for number, (group, label, marker) in enumerate(
        (("resized", "scaled", "o"), ("rendered", "drawn at that size", "s"))
    ):
        points = [summary for summary in of_group(summaries, group) if summary.setting.side]
        if points:
            # A little apart, so that neither interval hides the other.
            sides = [(summary.setting.side or 1) * (1 + 0.03 * number) for summary in points]
            _errors(axes, points, sides, label, marker, f"C{number}", "-")
    axes.set_xscale("log")
    ticks = sorted({summary.setting.side for summary in summaries if summary.setting.side})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    reference = _named(summaries, REFERENCE)
    if reference is not None:
        axes.axhline(reference.accuracy, color="0.5", linestyle=":", label="as it is")
    axes.set(
        ylim=(-0.03, 1.03),
        ylabel="exact match, with 95% interval",
        xlabel="longest side of the picture, pixels (log scale)",
    )
    axes.set_title("Accuracy against the side of the picture", fontsize=11)


def _errors(
    axes: Axes, points: Sequence[Summary], places: Sequence[float], label: str, marker: str, colour: str, line: str
) -> None:
    values = [point.accuracy for point in points]
    low = [max(0.0, point.accuracy - point.interval[0]) for point in points]
    high = [max(0.0, point.interval[1] - point.accuracy) for point in points]
    style = {
        "color": colour,
        "marker": marker,
        "markersize": 5,
        "linestyle": line or "none",
        "capsize": 2,
        "elinewidth": 0.8,
    }
    axes.errorbar(places, values, yerr=[low, high], label=label, **style)


def _mark_reference(axes: Axes, summaries: Sequence[Summary]) -> None:
    reference = _named(summaries, REFERENCE)
    if reference is not None:
        axes.plot(_tokens(reference), reference.accuracy, "k*", markersize=12, zorder=5, label="the model as it is")


def _mark_ocr(axes: Axes, summaries: Sequence[Summary]) -> None:
    ocr = _named(summaries, "ocr")
    if ocr is not None:
        axes.axhline(ocr.accuracy, color="0.4", linestyle="--", linewidth=1, label="RapidOCR and rules")


def _named(summaries: Sequence[Summary], name: str) -> Summary | None:
    return next((summary for summary in summaries if summary.setting.name == name), None)


def _on_curve(summaries: Sequence[Summary], group: str) -> list[Summary]:
    """The settings of a curve from few tokens to many; the reference has a mark of its own."""
    members = [summary for summary in of_group(summaries, group) if summary.setting.name != REFERENCE]
    return sorted((member for member in members if member.image_tokens is not None), key=_tokens)


def _tokens(summary: Summary) -> float:
    return summary.image_tokens or 0.0
