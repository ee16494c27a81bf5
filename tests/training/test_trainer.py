from __future__ import annotations

from pathlib import Path

import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import TrainerControl, TrainerState, TrainingArguments

from slime_vlm.training.trainer import ClockCheckpoints, on_any_process
from tests.training.forking import forking


def _save_after_a_step(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # On the clock of the first process it is time, on that of the second it is not.
    clock = ClockCheckpoints(minutes=0.0 if rank == 0 else 60.0)
    state, control = TrainerState(global_step=3, max_steps=9), TrainerControl()
    clock.on_step_end(TrainingArguments(f"{folder}/run", report_to=[]), state, control)
    (Path(folder) / str(rank)).write_text(f"{control.should_save} {on_any_process(False)} {on_any_process(rank == 1)}")
    dist.destroy_process_group()


def test_processes_save_at_the_same_step(tmp_path: Path) -> None:
    method = forking().get_start_method()
    mp.start_processes(_save_after_a_step, (str(tmp_path),), nprocs=2, start_method=method)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == 2 * ["True False True"]


def test_one_process_decides_alone() -> None:
    assert on_any_process(True)
    assert not on_any_process(False)
