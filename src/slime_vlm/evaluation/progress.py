"""The progress bar of an evaluation."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slime_vlm.evaluation.processes import Processes


def progress_bar(console: Console, processes: Processes, *, estimate_seconds: float = 30.0) -> Progress:
    """Return a progress bar that only the main process draws, and only on a terminal.

    Args:
        console: Where to draw it.
        processes: This process and how many there are.
        estimate_seconds: Length of the past period from which the remaining time is estimated.
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
