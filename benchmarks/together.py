"""Measure several questions about one image in one batch (`ask_together`), against asking them one by one.

    python benchmarks/together.py [--questions 16] [--rounds 3] [--new-tokens 32] [--budget 26] [--out together.json]
    python benchmarks/together.py --model random   # CLIP-L and 16 layers of width 1024, as in benchmarks/encode.py

Both ways take turns on the same encoded image, as it comes and with a budget of local tokens. Numbers are medians of
the process's CPU time on one thread. The prefix that all questions share is processed before the first round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from encode import build, image_of
from machine import machine
from transformers.utils import logging

import slime_vlm

PAGE = Path(__file__).parent.parent / "examples" / "invoice.png"
ASKED = (
    *("What is the total?", "What is the invoice number?", "What is the due date?", "What is the date?"),
    *("Who issued it?", "What is the amount due?", "What is the tax?", "What is the subtotal?"),
)


def loaded(name: str) -> tuple[Any, Any, Any]:
    """Return a model, its processor and an image."""
    if name != "random":
        return *slime_vlm.load(name, device="cpu"), slime_vlm.open_image(PAGE)
    parts = build(small=False, contender="ours")
    return parts.model, parts.processor, image_of(4, parts.config.view_size)


def measure(encoded: Any, questions: list[str], rounds: int, new_tokens: int) -> dict[str, float]:
    """Return the median CPU seconds of both ways, and the share of questions with the same answer."""
    seconds: dict[str, list[float]] = {"one by one": [], "together": []}
    alone: list[str] = []
    joint: list[str] = []
    for turn in range(1 + rounds):
        start = time.process_time()
        alone = [encoded.ask(question, max_new_tokens=new_tokens).text for question in questions]
        between = time.process_time()
        joint = [answer.text for answer in encoded.ask_together(questions, max_new_tokens=new_tokens)]
        end = time.process_time()
        if turn:
            seconds["one by one"].append(between - start)
            seconds["together"].append(end - between)
    same = sum(one == other for one, other in zip(alone, joint, strict=True)) / len(questions)
    return {way: statistics.median(values) for way, values in seconds.items()} | {"same answers": same}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="nano", help="what `slime_vlm.load` takes, or random")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--budget", type=int, default=26, help="max_local_tokens of the second row")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    model, processor, image = loaded(arguments.model)
    questions = [ASKED[index % len(ASKED)] for index in range(arguments.questions)]
    print(f"{machine()}, one thread, {arguments.model}, {len(questions)} questions; CPU seconds, medians\n")
    print("| local tokens | one by one | together | ratio | same answers |\n| --- | --- | --- | --- | --- |")
    results = {}
    encoded = slime_vlm.encode(model, processor, image)
    for name, budget in (("as it comes", model.config.max_local_tokens), ("budget", arguments.budget)):
        model.config.max_local_tokens = budget
        found = measure(encoded, questions, arguments.rounds, arguments.new_tokens)
        alone, together, same = found.values()
        label = name if name != "budget" else f"{budget}"
        print(f"| {label} | {alone:.3f} | {together:.3f} | {together / alone:.2f} | {same:.0%} |", flush=True)
        results[name] = found
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
