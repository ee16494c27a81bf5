"""Run the benchmarks that need no training, and print their main numbers in one table.

    python benchmarks/run_all.py --plot runs/bench.png    # small sweeps of the real sizes, below 20 minutes; make bench
    python benchmarks/run_all.py --quick                  # tiny parts, a few minutes
    python benchmarks/run_all.py --thorough               # wide sweeps and repeats, one thread, for hours
    python benchmarks/run_all.py --only encode.py first_token.py

Each benchmark is a program of its own, and one that fails is a row that says so. `--plot` draws how time and memory
grow with megapixels, tiles, questions, batch and sequence length. `--quick` shows that all of them work. Its numbers
are those of tiny models.

The usual form has two threads where there are two cores, and ends after `--minutes` on any machine: what runs then is
stopped, and what is left is left out. Rows say so, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth_plot import plot
from machine import load_warning, machine

FOLDER = Path(__file__).parent
MINUTES = 20


@dataclass(frozen=True)
class Benchmark:
    """One program of this folder.

    Attributes:
        name: Its file.
        headline: Its main numbers in words, from the JSON that it writes.
        seconds: What the usual form is expected to take on two cores.
        quick: Arguments of a quick run.
        usual: Arguments of a run without `--quick` or `--thorough`.
        thorough: Arguments of a thorough run.
        needs: A package without which it is left out.
    """

    name: str
    headline: Callable[[Any], str]
    seconds: int
    quick: tuple[str, ...]
    usual: tuple[str, ...] = ()
    thorough: tuple[str, ...] = ()
    needs: str | None = None


def _decode(found: Any) -> str:
    def cells(row: Any) -> str:
        mine, theirs = row["in place"]["seconds"], row["transformers"]["seconds"]
        return f"{1000 * mine:.1f} CPU ms, {mine / theirs:.2f} of transformers' cache"

    return "; ".join(f"a step of {row['rows']} rows behind {row['tokens']} tokens: {cells(row)}" for row in found)


def _encode(found: Any) -> str:
    def row(name: str) -> tuple[float, float, float]:
        seconds = found[name]
        whole = sum(value for step, value in seconds.items() if step != "peak")
        return whole, whole - seconds["decode"], seconds["peak"]

    parts = []
    for tiles in (name.removesuffix(" tiles, ours") for name in found if name.endswith(" tiles, ours")):
        ways = [way for way in ("ours", "ours, packed", "ours, fast") if f"{tiles} tiles, {way}" in found]
        published, llava = row(f"{tiles} tiles, published"), row(f"{tiles} tiles, LLaVA-NeXT")
        for way in ways:
            ours = row(f"{tiles} tiles, {way}")
            parts.append(
                f"{tiles} tiles, {way}: {ours[0]:.2f} s, {ours[0] / published[0]:.2f} of published, first token "
                f"{ours[1] / llava[1]:.2f} of LLaVA-NeXT's, peak {ours[2] / llava[2]:.2f} of its"
            )
    number = max(int(name.split()[0]) for name in found if name.endswith(" questions, ours"))
    ours, published, llava = (row(f"{number} questions, {way}") for way in ("ours", "published", "LLaVA-NeXT"))
    parts.append(
        f"{number} questions: {ours[0] / published[0]:.2f} of published, {ours[0] / llava[0]:.2f} of LLaVA-NeXT"
    )
    return "; ".join(parts)


def _first_token(found: Any) -> str:
    names = [name.removesuffix(", ours") for name in found if name.endswith(", ours")]
    parts = []
    for tiles in names:
        ours, llava = found[f"{tiles}, ours"], found[f"{tiles}, LLaVA-NeXT"]
        parts.append(
            f"{tiles}: {ours['measured'] / llava['measured']:.2f} of LLaVA-NeXT's measured, "
            f"{ours['computed'] / llava['computed']:.2f} computed"
        )
    settings = found["settings"]
    return f"{settings['layers']} of {settings['all layers']} layers measured; {'; '.join(parts)}"


def _train_step(found: Any) -> str:
    seconds = {row["way"]: row["cpu seconds"] for row in found}
    peaks = {row["way"]: row["peak"] for row in found}
    return (
        f"a packed sample: {seconds['packed']:.3f} CPU s, {seconds['packed'] / seconds['published']:.2f} of published, "
        f"peak {peaks['packed'] / peaks['published']:.2f} of its"
    )


def _huge_image(found: Any) -> str:
    last = found[-1]
    return (
        f"{last['megapixels']:.1f} megapixels, {last['tiles']} tiles: {sum(last['seconds'].values()):.2f} s, "
        f"{last['read']} tokens processed, peak {last['peak']:,.0f} MB"
    )


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
    Benchmark(
        "decode.py",
        _decode,
        40,
        quick=("--small", "--tokens", "200", "20", "--steps", "3"),
        usual=("--tokens", "1154", "300", "4096", "--steps", "4"),
        thorough=("--rows", "1", "2", "5", "10", "20", "--tokens", "1154", "300", "2048", "4096"),
    ),
    Benchmark(
        "encode.py",
        _encode,
        560,
        quick=(
            *("--small", "--repeats", "1", "--tiles", "2", "4", "--questions", "2", "--question-tiles", "2"),
            *("--new-tokens", "3"),
        ),
        usual=(
            *("--repeats", "1", "--tiles", "2", "4", "6", "--questions", "3", "--question-tiles", "2"),
            *("--new-tokens", "8"),
        ),
    ),
    Benchmark(
        "first_token.py",
        _first_token,
        150,
        quick=("--small", "--repeats", "1"),
        usual=("--layers", "1", "--repeats", "1", "--tiles", "2", "6"),
    ),
    Benchmark("train_step.py", _train_step, 60, quick=("--size", "tiny"), thorough=("--repeats", "3")),
    Benchmark(
        "huge_image.py",
        _huge_image,
        60,
        quick=("--encoder", "tiny", "--megapixels", "0.3", "1", "--max-tiles", "5"),
        usual=("--encoder", "tiny", "--megapixels", "1", "16", "49", "100"),
    ),
    Benchmark(
        "serve.py",
        _serve,
        80,
        quick=("--clients", "2", "--requests", "4", "--loop", "2"),
        usual=("--clients", "1", "4", "--requests", "8", "--loop", "4"),
        needs="fastapi",
    ),
    Benchmark(
        "together.py",
        _together,
        40,
        quick=("--questions", "4", "--rounds", "1", "--new-tokens", "4"),
        usual=("--questions", "8", "--rounds", "2"),
    ),
    Benchmark("start.py", _start, 50, quick=("--rounds", "1"), usual=("--rounds", "2")),
)


def run(benchmark: Benchmark, options: tuple[str, ...], limit: float | None) -> tuple[str, float, Any]:
    """Run a benchmark, and return its main numbers in words, its seconds and its JSON.

    Args:
        benchmark: The benchmark.
        options: Its arguments.
        limit: Seconds after which it is stopped, with all that it started. None for no limit.
    """
    if benchmark.needs is not None and importlib.util.find_spec(benchmark.needs) is None:
        return f"left out: {benchmark.needs} is not installed", 0.0, None
    if limit is not None and limit <= 0:
        return "left out: the time is over", 0.0, None
    with tempfile.TemporaryDirectory() as folder:
        out, start = Path(folder) / "out.json", time.perf_counter()
        command = [sys.executable, str(FOLDER / benchmark.name), *options, "--out", str(out)]
        # A session of its own, so that the processes that it starts can be stopped with it.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            _, complaints = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return "stopped: the time is over", time.perf_counter() - start, None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        seconds = time.perf_counter() - start
        if process.returncode:
            last = (complaints.strip().splitlines() or [f"exit {process.returncode}"])[-1]
            return f"failed: {last}", seconds, None
        found = json.loads(out.read_text())
        return benchmark.headline(found), seconds, found


def main() -> None:
    """Run all benchmarks and print the table."""
    parser = argparse.ArgumentParser()
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--quick", dest="form", action="store_const", const="quick", help="use tiny parts")
    form.add_argument("--thorough", dest="form", action="store_const", const="thorough", help="wide sweeps, for hours")
    parser.set_defaults(form="usual")
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--minutes", type=float, help=f"stop after so many (default: {MINUTES} of the usual form)")
    parser.add_argument(
        "--threads", type=int, help="default: 2 of the usual form where there are as many cores, else 1"
    )
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    parser.add_argument("--out", type=Path, help="JSON file to write: what each benchmark wrote")
    arguments = parser.parse_args()
    is_usual = arguments.form == "usual"
    minutes = arguments.minutes or (MINUTES if is_usual else None)
    threads = arguments.threads or (min(2, os.cpu_count() or 1) if is_usual else 1)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    end = None if minutes is None else time.perf_counter() + 60 * minutes
    warning = load_warning()
    described = f"{machine()}, {arguments.form}, {threads} thread(s)"
    print(f"{described}\n\n| benchmark | result | s |\n| --- | --- | --- |", flush=True)
    is_complete, results = True, {}
    for benchmark in BENCHMARKS:
        if benchmark.name not in arguments.only:
            continue
        if is_usual:
            print(f"{benchmark.name}: about {benchmark.seconds} s", file=sys.stderr, flush=True)
        left = None if end is None else end - time.perf_counter()
        headline, seconds, results[benchmark.name] = run(benchmark, getattr(benchmark, arguments.form), left)
        is_complete &= results[benchmark.name] is not None or headline.endswith("is not installed")
        print(f"| {benchmark.name} | {headline} | {seconds:.1f} |", flush=True)
        # A server and its clients are two processes.
        warning = warning or load_warning(own=max(2, threads))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"machine": described, "warning": warning, **results}, indent=1))
    if arguments.plot:
        plot(results, arguments.plot)
    if warning:
        print(f"\nWarning: {warning}")
    sys.exit(not is_complete)


if __name__ == "__main__":
    main()
