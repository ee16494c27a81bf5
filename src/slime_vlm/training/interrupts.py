"""Ctrl-C and SIGTERM during training: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from slime_vlm.training.trainer import SlimeTrainer, on_any_process


@contextmanager
def finish_step_on_interrupt(trainer: SlimeTrainer) -> Iterator[list[int]]:
    """Let the first Ctrl-C or SIGTERM finish the step, write a checkpoint and stop. A second one stops at once.

    Yields:
        Signals that arrived.
    """
    asked: list[int] = []

    class Stopper(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if on_any_process(bool(asked)):
                asked[:] = asked or [signal.SIGINT]
                control.should_save = control.should_training_stop = True

    def handler(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    trainer.add_callback(Stopper())
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread receives signals.
        yield asked
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
