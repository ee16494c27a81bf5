"""The shipped model on five tasks from end to end. A run that is killed and resumed equals an uninterrupted one."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from slime_vlm.cli import app
from tests.evaluation.make_fixtures import FIXTURES
from tests.evaluation.test_run import PLOTS, results_of, rows_of, without_seconds
from tests.training.forking import PATIENCE, slime, start

TASKS = ("textvqa", "pope", "mmbench", "docvqa", "ocrbench")
QUESTIONS = 10


def arguments(out: Path) -> list[str]:
    known = ["eval", "run", "--model", "nano", "--tasks", ",".join(TASKS), "--data", str(FIXTURES), "--limit", "2"]
    return [*known, "--batch-size", "1", "--device", "cpu", "--out", str(out)]


def finish(out: Path) -> str:
    # In this process, which has imported torch already.
    done = CliRunner().invoke(app, arguments(out))
    assert done.exit_code == 0, done.output
    return done.output


def lines_of(out: Path) -> list[str]:
    files = sorted(out.glob("*/predictions*.jsonl"))
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(tmp_path / "said", slime, *arguments(killed))
    until = time.monotonic() + PATIENCE
    while len(lines_of(killed)) < 3 and process.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "said").read_text()
    kept = lines_of(killed)
    assert 3 <= len(kept) < QUESTIONS
    assert not (killed / "results.json").exists()

    finish(killed)
    text = finish(whole)
    assert text.count("\n| ") == len(TASKS) + 1
    # Each with its seconds: what was there has not been computed again.
    assert set(kept) <= set(lines_of(killed))
    rows: dict[str, list[dict[str, Any]]] = rows_of(whole)
    assert sorted(rows) == sorted(TASKS)
    assert [len(found) for found in rows.values()] == [2] * len(TASKS)
    assert without_seconds(rows_of(killed)) == without_seconds(rows)
    assert results_of(killed) == results_of(whole)
    for out in (killed, whole):
        assert all((out / name).stat().st_size > 5_000 for name in PLOTS)
    assert all(row["prediction"] and row["tokens"]["kept"] > 0 for found in rows.values() for row in found)
    assert json.loads((whole / "run.json").read_text())["settings"]["model"] == "nano"
