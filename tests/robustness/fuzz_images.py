"""Open many damaged images and videos, and count what happens."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from pathlib import Path

from PIL import Image

from slime_vlm.errors import SlimeError
from slime_vlm.media import MAX_MEMORY, open_input, worker_pool
from slime_vlm.media.worker_pool import CPU_SECONDS
from tests.robustness.mutating import mutated
from tests.robustness.seeds import write_seeds

# Formats that Pillow alone reads: what it cannot decode must not open, as a black page for example.
_READ_BY_PILLOW = {".png", ".jpg", ".gif", ".webp", ".bmp", ".ppm"}

# What the interpreter and its buffers may take beside the image.
_SLACK = 60_000_000


def try_images(count: int, seed: int = 0) -> Counter[str]:
    """Open damaged files of every format, in turn.

    Args:
        count: How many.
        seed: Seed of the damage.

    Returns:
        Counts of "tried", "opened", "refused" (an error of this package), "codec crashed" (a refusal, too: the worker
        ended by a signal), "foreign exception", "opened though damaged" (Pillow cannot decode it), "over memory" and
        "over time" (20 CPU-seconds, both processes). Any foreign exception, its file and its seed are under a key of
        their own.
    """
    counts: Counter[str] = Counter(tried=0, opened=0, refused=0)
    with tempfile.TemporaryDirectory() as folder:
        seeds = write_seeds(Path(folder))
        contents = [path.read_bytes() for path in seeds]
        for number in range(count):
            chance = random.Random(f"{seed} {number}")
            path = seeds[number % len(seeds)]
            path.write_bytes(mutated(contents[number % len(seeds)], chance))
            # Sometimes a page, which goes another way.
            spec = f"{path}#{chance.randint(1, 3)}" if chance.random() < 0.2 else str(path)
            counts["tried"] += 1
            before, seconds = _reset_peak(), _cpu_seconds()
            try:
                open_input(spec)
                counts["opened"] += 1
                if spec == str(path) and path.suffix in _READ_BY_PILLOW and not _decodes(path):
                    counts["opened though damaged"] += 1
                    counts[f"opened though damaged: {path.name} {seed} {number}"] += 1
            except SlimeError as error:
                counts["refused"] += 1
                if "\n" in str(error):
                    counts[f"several lines: {path.name} {seed} {number}"] += 1
                counts["codec crashed"] += "its decoder crashed" in str(error)
            except Exception as error:
                counts["foreign exception"] += 1
                counts[f"{type(error).__name__}: {error} ({path.name}, {seed} {number})"] += 1
            counts["over memory"] += _peak() - before > MAX_MEMORY + _SLACK
            counts["over time"] += _cpu_seconds() - seconds > CPU_SECONDS + 2
    return counts


def _decodes(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:
        return False
    return True


def _cpu_seconds() -> float:
    """Return the computing time of this process, its workers that live and those that have ended."""
    times = os.times()
    tick = os.sysconf("SC_CLK_TCK")
    alive = 0.0
    for worker in worker_pool._pool.idle:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        alive += (int(fields[11]) + int(fields[12])) / tick
    return times.user + times.system + times.children_user + times.children_system + alive


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024


def _reset_peak() -> int:
    """Forget the peak of the resident memory, and return what is resident."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")
