"""The paper's benchmarks and related ones, one short file each. `BENCHMARKS` holds them by name."""

from __future__ import annotations

from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Joined, Judged, Question, Scored, Source, Submission
from slime_vlm.evaluation.benchmarks.registry import BENCHMARKS, Task, find_tasks, task_table

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "Joined",
    "Judged",
    "Question",
    "Scored",
    "Source",
    "Submission",
    "Task",
    "find_tasks",
    "task_table",
]
