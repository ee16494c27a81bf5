"""Measure two commits of this repository side by side, in one run.

    python benchmarks/compare.py OLD NEW [--rounds 5] [--model nano] [--image examples/invoice.png]

Each commit is checked out in a folder of its own and answers in a process of its own. The processes take turns, step by
step, so that other work on the machine disturbs both alike. Numbers are medians of CPU time on one thread: encoding an
image, the first question about it, the next ones, and a second turn of a conversation. The program also compares the
answers. OLD and NEW are anything that `git rev-parse` takes; `.` is the working tree.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import load_warning, machine

ROOT = Path(__file__).parent.parent
QUESTIONS = ("What is the amount due?", "What is the invoice number?", "What is the due date?")
STEPS = ("encode", "first question", "next questions", "second turn")


def work(model_name: str, image_path: str) -> None:
    """Measure a round for every line of stdin, and print it as JSON: seconds by step, and the answers."""
    import torch

    import slime_vlm
    from slime_vlm.inference.answering import encode

    torch.set_num_threads(1)
    model, processor = slime_vlm.load(model_name)
    image = slime_vlm.open_image(image_path)
    for _line in sys.stdin:
        marks = [time.process_time()]
        encoded = encode(model, processor, image)
        marks.append(time.process_time())
        answers = [encoded.ask(QUESTIONS[0]).text]
        marks.append(time.process_time())
        answers += [encoded.ask(question).text for question in QUESTIONS[1:]]
        marks.append(time.process_time())
        chat = slime_vlm.Conversation(model, processor)
        chat.add_encoded(encoded, image)
        chat.ask(QUESTIONS[0])
        before = time.process_time()
        answers.append(chat.ask(QUESTIONS[1]).text)
        seconds = [later - earlier for earlier, later in itertools.pairwise(marks)]
        seconds.append(time.process_time() - before)
        print(json.dumps({"seconds": dict(zip(STEPS, seconds, strict=True)), "answers": answers}), flush=True)


class Side:
    """A process that measures one commit, which lies in the folder `source`."""

    def __init__(self, name: str, source: Path, model: str, image: str) -> None:
        self._name = name
        environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--work", "--model", model, "--image", image]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=source
        )

    def round(self) -> dict[str, Any]:
        """Measure once.

        Raises:
            SystemExit: The process has died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self._name} ended, see above; does that commit run here?")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def check_out(name: str, folder: Path) -> tuple[str, Path]:
    """Put a commit into a folder. Return its short name, and where it lies.

    Raises:
        SystemExit: There is no such commit.
    """
    if name == ".":
        return "working tree", ROOT
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "--verify", "--quiet", f"{name}^{{commit}}"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(
            f"{name}: no commit of this repository, expected what git rev-parse takes, or . for these files"
        )
    folder.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", name], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return found.stdout.strip(), folder


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", metavar="COMMIT", help="OLD and NEW")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--image", default=str(ROOT / "examples" / "invoice.png"))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.model, arguments.image)
        return
    if len(arguments.commits) != 2:
        parser.error(f"got {len(arguments.commits)} commit(s), expected two: OLD NEW")
    # The processes run in the folders of their commits, and paths are those of this one.
    image = os.path.abspath(arguments.image)
    model = os.path.abspath(arguments.model) if os.path.isdir(arguments.model) else arguments.model
    warning = load_warning()
    with tempfile.TemporaryDirectory() as folder:
        places = [check_out(name, Path(folder) / str(index)) for index, name in enumerate(arguments.commits)]
        sides = [Side(name, place, model, image) for name, place in places]
        try:
            # The first round loads and allocates.
            first = [side.round() for side in sides]
            rounds = [[side.round() for side in sides] for _ in range(arguments.rounds)]
        finally:
            for side in sides:
                side.close()
    print(f"{machine()}, one thread, medians of {arguments.rounds} rounds in turn, CPU milliseconds\n")
    print(f"| | {' | '.join(name for name, _place in places)} | new / old |\n| --- | --- | --- | --- |")
    for step in STEPS:
        old, new = (statistics.median(pair[side]["seconds"][step] for pair in rounds) for side in (0, 1))
        print(f"| {step} | {1000 * old:.1f} | {1000 * new:.1f} | {new / old:.2f} |")
    print(f"\nanswers: {'the same' if first[0]['answers'] == first[1]['answers'] else 'different'}")
    if warning:
        print(f"Warning: {warning}")


if __name__ == "__main__":
    main()
