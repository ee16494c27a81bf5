"""The progress of a training on the terminal: one bar with the remaining time, and lines of numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
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
        parts_by_rate: The trained parts by their full learning rate. If there are several rates, a line shows each.
    """

    def __init__(self, console: Console, stage: str, parts_by_rate: Mapping[float, Sequence[str]]) -> None:
        self.console, self.stage, self.parts_by_rate = console, stage, parts_by_rate
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
        shown = {key: f"{value:.4g}" for key, value in logs.items() if key not in ("epoch", "total_flos")}
        if len(self.parts_by_rate) > 1 and logs.get("learning_rate"):
            shown["learning_rate"] = self._rates(logs["learning_rate"], kwargs["optimizer"])
        numbers = "  ".join(f"{key} {value}" for key, value in shown.items())
        self.console.print(
            f"{self.stage} {state.global_step:>{width}}/{state.max_steps}  {numbers}  "
            f"{timedelta(seconds=round(left))} left",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def _rates(self, logged: float, optimizer: Any) -> str:
        """Return the rate of every group of parameters, with the parts in it, where the first group's is logged."""
        factor = logged / optimizer.param_groups[0]["initial_lr"]
        return ", ".join(f"{factor * full:.4g} ({', '.join(parts)})" for full, parts in self.parts_by_rate.items())
