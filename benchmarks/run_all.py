"""Run the benchmarks that need no training, and print their main numbers in one table.

    python benchmarks/run_all.py --quick     # tiny parts, minutes; make bench
    python benchmarks/run_all.py             # the real sizes, hours on two cores
    python benchmarks/run_all.py --plot growth.png     # and draws how time and memory grow

Each benchmark is a program of its own, and one that fails is a row that says so. `--quick` shows that all of them work.
Its numbers are those of tiny models.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth_plot import plot
from machine import load_warning, machine

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Benchmark:
    """One program of this folder.

    Attributes:
        name: Its file.
        headline: Its main numbers in words, from the JSON that it writes.
        quick: Arguments of a quick run.
        full: Arguments of a full run.
        needs: A package without which it is left out.
    """

    name: str
    headline: Callable[[Any], str]
    quick: tuple[str, ...]
    full: tuple[str, ...] = ()
    needs: str | None = None


def _decode(found: Any) -> str:
    def cells(seconds: dict[str, float]) -> str:
        mine, theirs = seconds["in place"], seconds["transformers"]
        return f"{1000 * mine:.1f} CPU ms, {mine / theirs:.2f} of transformers' cache"

    return "; ".join(f"a step of {rows}: {cells(seconds)}" for rows, seconds in found.items())


def _encode(found: Any) -> str:
    ours, published = (
        sum(seconds for name, seconds in found[f"2 tiles, {way}"].items() if name != "peak")
        for way in ("ours", "published")
    )
    fast = sum(seconds for name, seconds in found["2 tiles, ours, fast"].items() if name != "peak")
    return (
        f"two tiles, one question: {ours:.3f} s, {ours / published:.2f} of the published way, "
        f"fast {fast / published:.2f}"
    )


def _train_step(found: Any) -> str:
    seconds = {row["way"]: row["cpu seconds"] for row in found}
    return (
        f"a packed sample: {seconds['packed']:.3f} CPU s, {seconds['packed'] / seconds['published']:.2f} of published"
    )


def _huge_image(found: Any) -> str:
    last = found[-1]
    return f"{last['tiles']} tiles: {sum(last['seconds'].values()):.2f} s, {last['read']} tokens processed"


def _start(found: Any) -> str:
    asked = found["slime ask, without the answer"][1]
    return f"slime ask: {asked:.2f} CPU s, {asked / found['import torch, transformers'][1]:.2f} of the imports"


def _together(found: Any) -> str:
    return "; ".join(
        f"{name}: {seconds['together'] / seconds['one by one']:.2f} of one by one" for name, seconds in found.items()
    )


def _serve(found: Any) -> str:
    rows = [row for row in found if row["images"] == "one"]
    return "; ".join(f"{row['engine']}, {row['clients']} client(s): {row['requests/s']:.1f} requests/s" for row in rows)


BENCHMARKS = (
    Benchmark("decode.py", _decode, ("--small", "--tokens", "200", "--steps", "3")),
    Benchmark(
        "encode.py", _encode, ("--small", "--repeats", "1", "--tiles", "2", "4", "--question-tiles", "2", "--no-memory")
    ),
    Benchmark("train_step.py", _train_step, ("--size", "tiny", "--threads", "1")),
    Benchmark("huge_image.py", _huge_image, ("--encoder", "tiny", "--megapixels", "0.3", "1", "--max-tiles", "5")),
    Benchmark("start.py", _start, ("--rounds", "1")),
    Benchmark("together.py", _together, ("--questions", "4", "--rounds", "1", "--new-tokens", "4")),
    Benchmark("serve.py", _serve, ("--clients", "2", "--requests", "4", "--loop", "2"), needs="fastapi"),
)


def run(benchmark: Benchmark, quick: bool) -> tuple[str, float, Any]:
    """Run a benchmark, and return its main numbers in words, its CPU seconds and its JSON."""
    if benchmark.needs is not None and importlib.util.find_spec(benchmark.needs) is None:
        return f"left out: {benchmark.needs} is not installed", 0.0, None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        before = _cpu_seconds()
        command = [sys.executable, str(FOLDER / benchmark.name), *(benchmark.quick if quick else benchmark.full)]
        done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
        seconds = _cpu_seconds() - before
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
            return f"failed: {last}", seconds, None
        found = json.loads(out.read_text())
        return benchmark.headline(found), seconds, found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run all benchmarks and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="use tiny parts")
    parser.add_argument("--only", nargs="+", choices=[benchmark.name for benchmark in BENCHMARKS])
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warning = load_warning()
    print(f"{machine()}, {'quick' if arguments.quick else 'full'}, one thread\n")
    print("| benchmark | result | CPU s |\n| --- | --- | --- |", flush=True)
    is_complete, results = True, {}
    for benchmark in BENCHMARKS:
        if arguments.only is None or benchmark.name in arguments.only:
            headline, seconds, results[benchmark.name] = run(benchmark, arguments.quick)
            is_complete &= not headline.startswith("failed")
            print(f"| {benchmark.name} | {headline} | {seconds:.1f} |", flush=True)
    if arguments.plot:
        plot(results, arguments.plot)
    warning = warning or load_warning(own=1)
    if warning:
        print(f"\nWarning: {warning}")
    sys.exit(not is_complete)


if __name__ == "__main__":
    main()
