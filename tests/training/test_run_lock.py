"""Two runs do not train one stage at the same time, and a killed run locks nobody out (training/run_lock.py)."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.training import run_lock
from slime_vlm.training.run import train
from slime_vlm.training.run_lock import locked
from tests.training.mini import mini_recipe, write_recipe

fcntl = pytest.importorskip("fcntl")

# Holds a lock until its input ends. With a second argument, its child has the same open file and lives on.
_HOLDER = """
import os
import sys
import time
from pathlib import Path

from slime_vlm.training.run_lock import locked

with locked(Path(sys.argv[1]), print):
    child = os.fork() if len(sys.argv) > 2 else None
    if child == 0:
        time.sleep(600)
    print("ready", child, flush=True)
    sys.stdin.read()
"""


class Holder:
    """A process that holds a lock."""

    def __init__(self, path: Path, *more: str) -> None:
        command = [sys.executable, "-c", _HOLDER, str(path), *more]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        word, self.child = self.process.stdout.readline().split()
        assert word == "ready"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "3.lock"


@pytest.fixture
def holder(path: Path) -> Iterator[Holder]:
    found = Holder(path)
    yield found
    found.kill()


def test_a_lock_that_is_held(path: Path, holder: Holder) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError) as caught, locked(path, pytest.fail):
            pytest.fail("two have the lock")
        said = str(caught.value)
        assert f"another run is at work on {path.parent / '3'}: " in said
        assert f"process {holder.process.pid} on {socket.gethostname()} holds {path}" in said
        assert "\n" not in said
    holder.end()
    with locked(path, pytest.fail):
        assert json.loads(path.read_text()) == {"host": socket.gethostname(), "process": os.getpid()}
    assert path.read_text() == ""


def test_a_lock_of_a_killed_process(path: Path, holder: Holder) -> None:
    holder.kill()
    lines: list[str] = []
    with locked(path, lines.append):
        pass
    who = f"process {holder.process.pid} on {socket.gethostname()}"
    assert lines == [f"{who} ended without giving 3.lock back, its lock is taken over"]
    with locked(path, pytest.fail):
        pass


def test_a_number_that_another_process_has_now(path: Path) -> None:
    path.write_text(json.dumps({"host": socket.gethostname(), "process": os.getppid()}))
    lines: list[str] = []
    with locked(path, lines.append):
        assert len(lines) == 1


def test_children_of_a_killed_process_hold_nothing(path: Path) -> None:
    """Workers that load data live for seconds after their run was killed."""
    parent = Holder(path, "with a child")
    parent.kill()
    try:
        lines: list[str] = []
        with locked(path, lines.append):
            assert len(lines) == 1
    finally:
        os.kill(int(parent.child), signal.SIGKILL)


def test_an_error_gives_the_lock_back(path: Path) -> None:
    with pytest.raises(KeyError), locked(path, pytest.fail):
        raise KeyError
    assert path.read_text() == ""
    Holder(path).end()


@pytest.mark.parametrize("text", ["{", "[1]", '"a"', "{}"])
def test_a_damaged_lock_file(text: str, path: Path) -> None:
    path.write_text(text)
    with locked(path, pytest.fail):
        pass


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "lockf", refuse)
        with locked(path, lines.append):
            pass
    monkeypatch.setattr(run_lock, "fcntl", None)
    with locked(path, lines.append):
        pass
    ending = "make sure that no other run uses this folder"
    assert lines == [
        f"{path} cannot be locked ({why}): {ending}" for why in ("No locks available", "this system has no fcntl")
    ]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path, mini_recipe()), tmp_path / "run"
    # What a first run is just writing.
    torn = out / "encoder" / "checkpoint-1"
    torn.mkdir(parents=True)
    holder = Holder(out / "encoder.lock")
    try:
        for resume in (False, True):
            with pytest.raises(ConfigError, match=f"process {holder.process.pid} on .*; wait for its end, stop it"):
                train(recipe, out, ["encoder"], resume=resume)
        assert torn.is_dir()
        assert not (out / "encoder" / "environment.json").exists()
    finally:
        holder.kill()
