"""`slime batch --ray`: the answers of `slime batch`, every record once, whoever is killed under way."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from slime_vlm.batch.job import JobResult, run_job
from slime_vlm.batch.options import JobOptions
from slime_vlm.errors import ConfigError
from slime_vlm.media import OpenedInput, open_input
from slime_vlm.serving.settings import Settings
from tests.clusters.conftest import wait_until, workers_of
from tests.serving.conftest import drawn
from tests.tiny_reader import save_tiny_reader

pytest.importorskip("ray")

NEW = 32
COUNT = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, pictures, and records that ask about them, one of them about a picture that is not there."""
    found = tmp_path_factory.mktemp("batch")
    save_tiny_reader(found / "model", max_tiles=4)
    for name in ("a", "b", "c"):
        drawn(name, 90, 60 + 30 * ord(name) % 90).save(found / f"{name}.png")
    records = [
        {"id": f"r{number}", "image": f"{'abc'[number % 3]}.png", "question": f"question {number}?"}
        for number in range(COUNT)
    ]
    records[7]["image"] = "none.png"
    (found / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return found


def job(folder: Path, out: Path, said: io.StringIO | None = None, **fields: Any) -> JobResult:
    options = {
        "records": str(folder / "records.jsonl"),
        "out": out,
        "model": str(folder / "model"),
        "limits": Settings(slots=3, max_tokens=NEW),
        "open_image": open_input,
        "device": "cpu",
        "settings": {"--max-new-tokens": NEW, "--max-length": 4096},
        **fields,
    }
    return run_job(JobOptions(**options), Console(file=said or io.StringIO(), width=1000))


def command(folder: Path, out: Path, address: str) -> list[str]:
    options = ["--model", str(folder / "model"), "--max-new-tokens", str(NEW), "--slots", "3", "--device", "cpu"]
    records = str(folder / "records.jsonl")
    return [sys.executable, "-m", "slime_vlm", "batch", records, "--out", str(out), *options, "--ray", address]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def answers(out: Path) -> list[dict[str, Any]]:
    """What does not depend on time."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in lines(out / "answers.jsonl")]


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[dict[str, Any]]:
    """The answers without Ray."""
    out = folder / "alone"
    assert job(folder, out) == JobResult(COUNT, COUNT - 1, 1, False)
    found = answers(out)
    assert [row["id"] for row in found] == [f"r{number}" for number in range(COUNT) if number != 7]
    assert len({row["answer"] for row in found}) > COUNT // 2
    return found


def num_lines(out: Path) -> int:
    path = out / "answers.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_two_raylets_give_the_answers_of_one_process(
    folder: Path, alone: list[dict[str, Any]], cluster: Any, tmp_path: Path
) -> None:
    """The real command, whose driver is killed under way and started again."""
    out = tmp_path / "out"
    with started(folder, out, cluster) as process:
        wait_until(lambda: num_lines(out) >= 10 or process.poll() is not None)
        assert len(workers_of(cluster)) == 2
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -9, errors
    # The last line may be torn.
    before = (out / "answers.jsonl").read_bytes().split(b"\n")[:-1]
    assert 10 <= len(before) < COUNT - 1
    with started(folder, out, cluster) as process:
        said, errors = process.communicate()
    assert process.returncode == 1, errors
    assert f"{COUNT - 1} of {COUNT} records answered" in said
    assert answers(out) == alone
    # Those that were there are the very same, times included.
    assert set(before) <= set((out / "answers.jsonl").read_bytes().split(b"\n"))
    assert lines(out / "errors.jsonl") == lines(folder / "alone" / "errors.jsonl")


def test_workers_and_a_raylet_are_killed(
    folder: Path, alone: list[dict[str, Any]], cluster: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with started(folder, out, cluster) as process:
        wait_until(lambda: (len(workers_of(cluster)) == 2 and num_lines(out) >= 5) or process.poll() is not None)
        os.kill(workers_of(cluster)[0], signal.SIGKILL)
        wait_until(lambda: num_lines(out) >= 15 or process.poll() is not None)
        assert num_lines(out) < COUNT - 1
        (node,) = cluster.worker_nodes
        cluster.remove_node(node, allow_graceful=False)
        said, errors = process.communicate()
    assert process.returncode == 1, errors
    assert errors.count("a worker was lost, its ") >= 1
    assert f"{COUNT - 1} of {COUNT} records answered" in said
    assert answers(out) == alone
    assert lines(out / "errors.jsonl") == lines(folder / "alone" / "errors.jsonl")


def test_a_record_that_kills_its_workers_is_given_up(
    folder: Path, alone: list[dict[str, Any]], cluster: Any, tmp_path: Path
) -> None:
    """The others are answered, those too that were under way with it."""

    def opened(spec: str) -> OpenedInput:
        if spec.endswith("none.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return open_input(spec)

    said = io.StringIO()
    result = job(folder, tmp_path, said, open_image=opened, ray=cluster.address, ray_workers=1)
    assert result == JobResult(COUNT, COUNT - 1, 1, False)
    assert answers(tmp_path) == alone
    (error,) = lines(tmp_path / "errors.jsonl")
    assert (error["id"], error["record"]) == ("r7", 7)
    assert error["error"].startswith("3 workers were lost with this record; the last one: ")
    assert said.getvalue().count("a worker was lost") == 3


def test_what_is_wrong_is_said_in_one_line(folder: Path, cluster: Any, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"--ray {address}: no cluster answers .*refused.*ray start --head"):
            job(folder, tmp_path, ray=address)
    with pytest.raises(ConfigError, match=r"no worker can start: .*'meta'"):
        job(folder, tmp_path, ray=cluster.address, device="meta")


def started(folder: Path, out: Path, cluster: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, out, cluster.address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
