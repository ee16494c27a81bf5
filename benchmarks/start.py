"""Measure how long `slime ask` takes to start, against importing torch and transformers.

    python benchmarks/start.py [--rounds 5] [--model nano] [--out start.json]

Three processes take turns: one that imports torch and transformers, one that answers a question in one token, and one
that prints the help. What the answer itself took (from the image to the token) is taken off. The first round fills the
file cache and does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import load_warning, machine

PAGE = Path(__file__).parent.parent / "examples" / "invoice.png"
IMPORTS = "import torch, transformers"
ASKED = ("ask", str(PAGE), "-q", "What is the total?", "--json", "--max-new-tokens", "1", "--model")


def seconds_of(command: list[str]) -> tuple[float, float, str]:
    """Run a command. Return its seconds, its CPU seconds and what it printed.

    Raises:
        SystemExit: It failed.
    """
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used, done.stdout


def one_round(model: str) -> dict[str, tuple[float, float]]:
    """Return seconds and CPU seconds of every contender."""
    imports = seconds_of([sys.executable, "-c", IMPORTS])
    asked = seconds_of([sys.executable, "-m", "slime_vlm", *ASKED, model])
    steps = json.loads(asked[2])["seconds"]
    answering = sum(value for step, value in steps.items() if step not in ("load", "open"))
    help_text = seconds_of([sys.executable, "-m", "slime_vlm", "ask", "--help"])
    return {
        IMPORTS: imports[:2],
        "slime ask, without the answer": (asked[0] - answering, asked[1] - answering),
        "slime ask, whole": asked[:2],
        "slime ask --help": help_text[:2],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    # One thread for all: several would count as several CPU seconds while they wait.
    os.environ["OMP_NUM_THREADS"] = "1"
    warning = load_warning()
    one_round(arguments.model)
    rounds = [one_round(arguments.model) for _ in range(arguments.rounds)]
    found = {name: [statistics.median(one[name][k] for one in rounds) for k in (0, 1)] for name in rounds[0]}
    print(f"{machine()}, medians of {arguments.rounds} rounds in turn\n")
    print("| | s | CPU s | CPU, of the imports |\n| --- | --- | --- | --- |")
    for name, (wall, used) in found.items():
        print(f"| {name} | {wall:.2f} | {used:.2f} | {used / found[IMPORTS][1]:.2f} |")
    if warning:
        print(f"\nWarning: {warning}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
