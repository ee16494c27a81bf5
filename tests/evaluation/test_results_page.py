"""The table of the paper's numbers in docs/results.md names existing tasks."""

from __future__ import annotations

import re
from pathlib import Path

from slime_vlm.evaluation.benchmarks import find_tasks

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## The paper's benchmarks")[1].split("\n## ")[0]


def test_every_task_of_the_table_exists_and_is_run() -> None:
    rows = [line.split("|")[1:-1] for line in SECTION.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 17
    named = {row[1].strip().strip("`") for row in rows}
    assert {task.name for name in named for task in find_tasks(name)} >= {"textvqa_ocr", "vqav2-test", "pope"}
    asked = {name for names in re.findall(r"--tasks (\S+)", SECTION) for name in names.split(",")}
    assert asked == named


def test_paper_and_ours_take_turns() -> None:
    rows = [line.split("|")[1:-1] for line in SECTION.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[0][2:]] == [
        f"{size} {who}" for size in ("7B", "8B", "13B") for who in ("paper", "ours")
    ]
    for row in rows[2:]:
        assert all(float(cell) > 0 for cell in row[2::2]), row
