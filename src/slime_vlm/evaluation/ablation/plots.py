"""Plots of an ablation: accuracy and seconds against image tokens, accuracy against the side of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slime_vlm.evaluation.ablation.settings import REFERENCE
from slime_vlm.evaluation.ablation.summary import Summary, of_group

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
    """Draw the plots for which there is data.

    Returns:
        The files that were written.
    """
    drawn = []
    if any(len(_on_curve(summaries, group)) > 1 for group, *_ in _CURVES):
        drawn.append(
            _draw(
                out / "accuracy_against_tokens.png",
                lambda axes: _accuracy(axes, summaries),
                lambda axes: _accuracy_by_kept(axes, summaries),
            )
        )
        drawn.append(_draw(out / "seconds_against_tokens.png", lambda axes: _seconds(axes, summaries)))
    if len(of_group(summaries, "resized")) > 1:
        drawn.append(_draw(out / "accuracy_against_side.png", lambda axes: _sides(axes, summaries)))
    return drawn


def _draw(path: Path, *fills: Callable[[Axes], None]) -> Path:
    # Without pyplot, matplotlib needs no display and shares no state between figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 + 4.5 * len(fills), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, len(fills), squeeze=False)[0]
    for axes, fill in zip(every, fills, strict=True):
        fill(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    every[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    figure.savefig(path, dpi=120)
    return path


def _accuracy(axes: Axes, summaries: Sequence[Summary]) -> None:
    _accuracy_against(axes, summaries, _tokens)
    axes.set(xlabel="image tokens (global and local), mean per question", title="Accuracy against image tokens")
    axes.set_xlim(left=0)


def _accuracy_by_kept(axes: Axes, summaries: Sequence[Summary]) -> None:
    """Plot the same points by local tokens alone. With the constant global tokens they would crowd together."""
    from matplotlib.ticker import LogLocator

    _accuracy_against(axes, [summary for summary in summaries if summary.kept_tokens != 0], _kept)
    axes.set(xlabel="local tokens, mean per question (log scale)", title="Accuracy against local tokens")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter("")


def _accuracy_against(axes: Axes, summaries: Sequence[Summary], x_of: Callable[[Summary], float]) -> None:
    for number, (group, label, marker) in enumerate(_CURVES):
        points = _on_curve(summaries, group)
        if len(points) > 1:
            _errors(axes, points, [x_of(point) for point in points], label, marker, f"C{number}", "-")
    for number, (name, (label, marker)) in enumerate(_POINTS.items(), start=len(_CURVES)):
        # A series without points still gets a line in the legend, which both panels share.
        points = [summary for summary in summaries if summary.setting.name == name]
        _errors(axes, points, [x_of(point) for point in points], label, marker, f"C{number}", "")
    reference, ocr = _named(summaries, REFERENCE), _named(summaries, "ocr")
    if reference is not None:
        style: dict[str, Any] = {
            "color": "k",
            "marker": "*",
            "markersize": 15,
            "linestyle": "none",
            "fillstyle": "none",
        }
        axes.plot(x_of(reference), reference.accuracy, label="the model as it is", **style)
    if ocr is not None:
        axes.axhline(ocr.accuracy, color="0.4", linestyle="--", linewidth=1, label="RapidOCR and rules")
    axes.set(ylim=(-0.03, 1.03), ylabel="exact match, with 95% interval")


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
    axes.set(ylabel="seconds per question, after encoding", xlabel="image tokens, mean per question")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_title("Seconds against image tokens")


def _sides(axes: Axes, summaries: Sequence[Summary]) -> None:
    for number, (group, label, marker) in enumerate(
        (("resized", "scaled", "o"), ("rendered", "drawn at that size", "s"))
    ):
        points = [summary for summary in of_group(summaries, group) if summary.setting.side]
        if points:
            # Slightly shifted, so that the intervals do not hide each other.
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
        xlabel="longest side of the image, pixels (log scale)",
    )
    axes.set_title("Accuracy against the side of the image")


def _errors(
    axes: Axes, points: Sequence[Summary], xs: Sequence[float], label: str, marker: str, colour: str, line: str
) -> None:
    values = [point.accuracy for point in points]
    low = [max(0.0, point.accuracy - point.interval[0]) for point in points]
    high = [max(0.0, point.interval[1] - point.accuracy) for point in points]
    style: dict[str, Any] = {
        "color": colour,
        "marker": marker,
        "markersize": 5,
        "linestyle": line or "none",
        "capsize": 2,
        "elinewidth": 0.8,
    }
    axes.errorbar(xs, values, yerr=[low, high], label=label, **style)


def _named(summaries: Sequence[Summary], name: str) -> Summary | None:
    return next((summary for summary in summaries if summary.setting.name == name), None)


def _on_curve(summaries: Sequence[Summary], group: str) -> list[Summary]:
    """Return the settings of a curve, ordered by tokens. The reference has a marker of its own."""
    members = [summary for summary in of_group(summaries, group) if summary.setting.name != REFERENCE]
    return sorted((member for member in members if member.image_tokens is not None), key=_tokens)


def _tokens(summary: Summary) -> float:
    return summary.image_tokens or 0.0


def _kept(summary: Summary) -> float:
    return summary.kept_tokens or 0.0
