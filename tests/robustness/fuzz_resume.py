"""Kill a run at its writes or damage its newest checkpoint, resume it, and compare it with an unbroken run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from slime_vlm.training.checkpoint_manifest import MANIFEST
from slime_vlm.training.run import train
from tests.training.forking import PATIENCE, start
from tests.training.mini import losses, mini_recipe, write_recipe

STAGE = "encoder"

_WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


def write_mini(folder: Path) -> Path:
    """Write a recipe of one stage of 8 steps that writes a checkpoint at every step."""
    values = mini_recipe()
    values["stages"] = [{**stage, "save_minutes": 0.0} for stage in values["stages"] if stage["name"] == STAGE]
    return write_recipe(folder, values)


def _at_writes(out: Path, act: Callable[[int], None]) -> None:
    """Call a function before every write below a folder: a file opened for it, a new name, a removal."""
    count = 0
    below = os.fspath(out)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & os.O_ACCMODE)
        else:
            path, writes = (arguments[0] if arguments else None), event in _WRITES
        if writes and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(below):
            count += 1
            act(count)

    sys.addaudithook(hook)


def _killed_at(recipe: Path, out: Path, point: int) -> None:
    def act(count: int) -> None:
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    _at_writes(out, act)
    train(recipe, out)


def _counted(recipe: Path, out: Path, report: Path) -> None:
    torch.set_num_threads(1)
    points = 0

    def act(count: int) -> None:
        nonlocal points
        points = count

    _at_writes(out, act)
    train(recipe, out)
    report.write_text(str(points))


def _resumed(recipe: Path, out: Path) -> None:
    torch.set_num_threads(1)
    train(recipe, out, resume=True)


def _run(log: Path, function: Callable[..., None], *arguments: Any) -> int | None:
    process = start(log, function, *arguments)
    process.join(PATIENCE)
    return process.exitcode


def unbroken_run(folder: Path) -> tuple[Path, Path, Path]:
    """Return a recipe, a run of it that nothing happened to, and the file for what runs say; made if missing."""
    unbroken, points, log = folder / "unbroken", folder / "points", folder / "log"
    recipe = write_mini(folder)
    if not points.exists():
        assert _run(log, _counted, recipe, unbroken, points) == 0, log.read_text()
    return recipe, unbroken, log


def try_kills(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Kill a run at some of its writes, each time from the beginning, and resume it.

    Args:
        folder: A folder to work in, empty or that of `try_damages`.
        count: How many write points to try. They are drawn, and all are tried where there are fewer.
        seed: Seed of the draw.

    Returns:
        Counts of "write points" of the run, "killed", "bit-equal" and "different", the last with the point.
    """
    recipe, unbroken, log = unbroken_run(folder)
    total = int((folder / "points").read_text())
    counts: Counter[str] = Counter({"write points": total})
    for point in sorted(random.Random(seed).sample(range(1, total + 1), min(count, total))):
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        counts["killed"] += _run(log, _killed_at, recipe, out, point) == -signal.SIGKILL
        _finish(recipe, out, unbroken, log, f"killed at {point}", counts)
    return counts


def damages(seed: int = 0) -> list[tuple[str, Callable[[Path], None]]]:
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


def try_damages(folder: Path, count: int = 30) -> Counter[str]:
    """Damage the newest checkpoint of an unfinished run in many ways, and resume it from the one before.

    Args:
        folder: A folder to work in, empty or that of `try_kills`.
        count: How many of `damages` to try.

    Returns:
        Counts of "damaged", "bit-equal", "one line" (of damage) and "different".
    """
    recipe, unbroken, log = unbroken_run(folder)
    counts: Counter[str] = Counter()
    for name, damage in damages()[:count]:
        out = folder / "damaged"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(unbroken, out)
        shutil.rmtree(out / STAGE / "model")
        newest = max((out / STAGE).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        damage(newest)
        counts["damaged"] += 1
        _finish(recipe, out, unbroken, log, name, counts)
        said = [line for line in log.read_text().splitlines() if newest.name in line]
        counts["one line"] += len([line for line in said if "damaged" in line or "not written to its end" in line]) == 1
    return counts


def _finish(recipe: Path, out: Path, unbroken: Path, log: Path, what: str, counts: Counter[str]) -> None:
    """Resume a run to its end, and compare it."""
    ended = _run(log, _resumed, recipe, out)
    equal = ended == 0 and losses(out / STAGE) == losses(unbroken / STAGE)
    if equal:
        ours, theirs = (load_file(run / STAGE / "model" / "model.safetensors") for run in (out, unbroken))
        equal = ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    counts["bit-equal" if equal else "different"] += 1
    if not equal:
        lines = log.read_text().strip().splitlines()
        counts[f"different: {what} ({lines[-1] if lines else ended})"] += 1
