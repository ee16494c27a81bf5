"""The lines of numbers on the terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerState

from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.reporting.progress import ProgressLines
from slime_vlm.training.stages import parts_by_rate


def line(parts: dict[float, list[str]], optimizer: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    lines = ProgressLines(console, "3", parts)
    state = TrainerState(global_step=5, max_steps=10)
    arguments: Any = SimpleNamespace()
    lines.on_log(arguments, state, arguments, {"loss": 1.25, "learning_rate": 1e-4, "epoch": 1.0}, optimizer=optimizer)
    return console.file.getvalue()


def test_every_learning_rate_is_shown_with_its_parts() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in (2e-4, 4e-5)]
    optimizer = torch.optim.AdamW(groups)
    # The step that is logged had half of the rate. The schedule is one step further.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)
    for _ in range(6):
        optimizer.step()
        schedule.step()
    shown = line({4e-5: ["language_model"], 2e-4: ["projector", "gate"]}, optimizer)
    assert "loss 1.25  learning_rate 2e-05 (language_model), 0.0001 (projector, gate)  " in shown
    assert "learning_rate 0.0001  " in line({2e-4: ["projector"]}, optimizer)


def test_parts_by_rate_of_a_recipe() -> None:
    stages = {stage.name: parts_by_rate(stage) for stage in load_recipe("slime-vicuna-7b").stages}
    assert len(stages) > 1
    for rates in stages.values():
        assert all(rate > 0 and parts for rate, parts in rates.items())
