"""Resume a run from what a kill leaves, or from a damaged newest checkpoint, and compare it with an unbroken run.

One process trains once, which imports everything, and then forks the others: a resumed run costs a second of computing.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from slime_vlm.training.checkpoint_manifest import MANIFEST
from slime_vlm.training.run import train
from tests.robustness.write_points import Sizes, at_writes, sizes, states
from tests.training.forking import PATIENCE, start
from tests.training.mini import losses, mini_recipe, write_recipe

STAGE = "encoder"

Damage = Callable[[Path], None]


def write_mini(folder: Path) -> Path:
    """Write a recipe of one stage of 8 steps that writes a checkpoint at every step."""
    values = mini_recipe()
    values["stages"] = [{**stage, "save_minutes": 0.0} for stage in values["stages"] if stage["name"] == STAGE]
    return write_recipe(folder, values)


def try_kills(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Resume what a kill leaves at the writes of a run, and amid the files that it writes.

    Args:
        folder: An empty folder to work in.
        count: How many write points to try. They are drawn, and all are tried where there are fewer.
        seed: Seed of the draw.

    Returns:
        Counts of "write points" of the run, "tried", "bit-equal" and "different", the last with the point.
    """
    return _in_a_process(folder, _at_write_points, count, seed)


def try_moments(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Kill runs and their resumed runs with SIGKILL at random moments of their computing time, and resume them.

    Args:
        folder: An empty folder to work in.
        count: How many runs to kill, each of them twice if it does not end before.
        seed: Seed of the moments.

    Returns:
        Counts of "tried", "killed", "bit-equal" and "different".
    """
    return _in_a_process(folder, _at_moments, count, seed)


def try_damages(folder: Path, count: int = 30) -> Counter[str]:
    """Damage the newest checkpoint of an unfinished run in many ways, and resume it from the one before.

    Args:
        folder: An empty folder to work in.
        count: How many of `damages` to try.

    Returns:
        Counts of "damaged", "bit-equal", "one line" (of damage) and "different".
    """
    return _in_a_process(folder, _damaged, count)


def _in_a_process(folder: Path, function: Callable[..., None], *arguments: int) -> Counter[str]:
    said = folder / "said"
    process = start(said, function, folder, *arguments)
    process.join()
    assert process.exitcode == 0, said.read_text()
    return Counter(json.loads((folder / "counts").read_text()))


class _Runs:
    """An unbroken run, and processes that are forked after it."""

    def __init__(self, folder: Path) -> None:
        # Processes cannot be forked after a GPU was used.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.folder, self.recipe = folder, write_mini(folder)
        self.unbroken, self.out, self.log = folder / "unbroken", folder / "run", folder / "log"
        train(self.recipe, self.unbroken)
        self.expected = load_file(self.unbroken / STAGE / "model" / "model.safetensors")
        self.losses = losses(self.unbroken / STAGE)
        self.counts: Counter[str] = Counter()
        # A collection of what is here already would copy its pages in every process.
        gc.collect()
        gc.freeze()

    def fork(self, function: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=_said, args=(self.log, function, arguments))
        process.start()
        return process

    def finish(self, what: str, damaged: str | None = None) -> None:
        """Resume the run to its end, compare it, and count the lines that say that a checkpoint is damaged."""
        process = self.fork(_resume, self.recipe, self.out)
        process.join(PATIENCE)
        process.kill()
        equal = process.exitcode == 0 and self._losses_agree()
        if equal:
            found = load_file(self.out / STAGE / "model" / "model.safetensors")
            equal = found.keys() == self.expected.keys()
            equal = equal and all(torch.equal(found[key], value) for key, value in self.expected.items())
        self.counts["bit-equal" if equal else "different"] += 1
        if not equal:
            lines = self.log.read_text().strip().splitlines()
            self.counts[f"different: {what} ({lines[-1] if lines else process.exitcode})"] += 1
        if damaged is not None:
            said = [line for line in self.log.read_text().splitlines() if damaged in line]
            of_damage = [line for line in said if "damaged" in line or "not written to its end" in line]
            self.counts["one line"] += len(of_damage) == 1
        shutil.rmtree(self.out, ignore_errors=True)
        (self.folder / "counts").write_text(json.dumps(self.counts))

    def _losses_agree(self) -> bool:
        """Whether all losses that were written are those of the unbroken run. A kill may lose some that were not."""
        found = losses(self.out / STAGE)
        return found.items() <= self.losses.items() and max(self.losses) in found


def _said(log: Path, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    function(*arguments)


def _resume(recipe: Path, out: Path) -> None:
    # As if it were not installed: drawing the curves takes longer than the training.
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    train(recipe, out, resume=True)


def _waiting(recipe: Path, out: Path, connection: Connection) -> None:
    """Train, and wait before every write until the other end has answered."""

    def act() -> None:
        connection.send(True)
        connection.recv()

    at_writes(out, act)
    train(recipe, out)
    connection.send(False)


def _at_write_points(folder: Path, count: int, seed: int) -> None:
    runs = _Runs(folder)
    source = folder / "source"

    def walk(visit: Callable[[str, Damage], None]) -> None:
        """Train once, and visit every state that a kill could leave."""
        ours, theirs = multiprocessing.Pipe()
        shutil.rmtree(source, ignore_errors=True)
        process = runs.fork(_waiting, runs.recipe, source, theirs)
        before: Sizes = {}
        goes_on = True
        while goes_on:
            goes_on = ours.recv()
            now = sizes(source)
            for what, write in states(source, before, now):
                visit(what, write)
            before = now
            if goes_on:
                ours.send(None)
        process.join()

    total = 0

    def number(what: str, write: Damage) -> None:
        nonlocal total
        total += 1

    walk(number)
    chosen = set(random.Random(seed).sample(range(1, total + 1), min(count, total)))
    runs.counts["write points"], point = total, 0

    def resume(what: str, write: Damage) -> None:
        nonlocal point
        point += 1
        if point in chosen:
            runs.counts["tried"] += 1
            write(runs.out)
            runs.finish(f"killed at {point} of {total}, {what}")

    walk(resume)


def _at_moments(folder: Path, count: int, seed: int) -> None:
    runs = _Runs(folder)
    chance = random.Random(seed)
    process = runs.fork(_resume, runs.recipe, runs.out)
    whole = _killed_after(process, float("inf"))
    for number in range(count):
        shutil.rmtree(runs.out, ignore_errors=True)
        moments = [chance.uniform(0, whole), chance.uniform(0, whole)]
        runs.counts["tried"] += 1
        for moment in moments:
            process = runs.fork(_resume, runs.recipe, runs.out)
            _killed_after(process, moment)
            runs.counts["killed"] += process.exitcode == -9
        runs.finish(f"killed {number}, after {moments} of {whole} s")


def _killed_after(process: BaseProcess, seconds: float) -> float:
    """Kill a process when it has computed so long, or wait for its end. Return how long it has computed."""
    tick, used = os.sysconf("SC_CLK_TCK"), 0.0
    while process.exitcode is None:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        used = max(used, (int(fields[11]) + int(fields[12])) / tick)
        if used >= seconds:
            process.kill()
            process.join()
        time.sleep(0.001)
    return used


def damages(seed: int = 0) -> list[tuple[str, Damage]]:
    """Thirty ways to damage a checkpoint: five for each of six files."""
    chance = random.Random(seed)

    def remove(path: Path) -> None:
        path.unlink()

    def empty(path: Path) -> None:
        path.write_bytes(b"")

    def halve(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    def add_noise(path: Path) -> None:
        with path.open("rb+") as file:
            file.seek(path.stat().st_size // 2)
            file.write(chance.randbytes(200))

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)

    names = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", MANIFEST)
    return [
        (f"{function.__name__} {name}", lambda folder, name=name, function=function: function(folder / name))
        for name in names
        for function in (remove, empty, halve, add_noise, flip)
    ]


def _damaged(folder: Path, count: int) -> None:
    runs = _Runs(folder)
    for name, damage in damages()[:count]:
        shutil.copytree(runs.unbroken, runs.out)
        shutil.rmtree(runs.out / STAGE / "model")
        newest = max((runs.out / STAGE).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        damage(newest)
        runs.counts["damaged"] += 1
        runs.finish(name, newest.name)
