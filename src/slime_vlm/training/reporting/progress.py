"""The progress of a training on the terminal: one bar with the remaining time, and lines of numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressLines(TrainerCallback):
    """Show a bar on a terminal, and print a line of numbers at every log step.

    Args:
        console: Console to write to.
        stage: Name of the stage.
    """

    def __init__(self, console: Console, stage: str) -> None:
        self.console, self.stage = console, stage
        self.bar = Progress(
            TextColumn("stage {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.begin, self.first_step = time.monotonic(), 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar within a block, and remove it at the end, also after an error."""
        with self.bar:
            yield

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.begin, self.first_step = time.monotonic(), state.global_step
        self.bar.add_task(self.stage, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar."""
        for task in self.bar.task_ids:
            self.bar.update(task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print one line of numbers."""
        if logs is None or "loss" not in logs:
            return
        done = state.global_step - self.first_step
        left = (time.monotonic() - self.begin) / max(1, done) * (state.max_steps - state.global_step)
        width = len(str(state.max_steps))
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in logs.items() if key not in ("epoch", "total_flos"))
        self.console.print(
            f"{self.stage} {state.global_step:>{width}}/{state.max_steps}  {numbers}  "
            f"{timedelta(seconds=round(left))} left",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
