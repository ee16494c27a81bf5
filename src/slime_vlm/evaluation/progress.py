"""The progress bar of an evaluation."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slime_vlm.evaluation.processes import Processes


def progress_bar(console: Console, processes: Processes, *, estimate_seconds: float = 30.0) -> Progress:
    """A bar on a terminal, drawn by the main process alone.

    Args:
        console: where it is shown.
        processes: this process among all.
        estimate_seconds: how far back the estimate of the time that is left looks.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        speed_estimate_period=estimate_seconds,
        disable=not (console.is_terminal and processes.is_main),
    )
