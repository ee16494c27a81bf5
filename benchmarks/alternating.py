"""Global, then local, then both, against everything at once, with as many steps (paper section 3.4).

    python benchmarks/alternating.py --plot docs/figures/alternating.png
    python benchmarks/alternating.py --scale 0.01 --pages 1 --seeds 1    # to see that it works

The paper starts from a trained encoder and a trained language model, and trains what lies between. So does this: of
nano the encoder, the language model and the table of visual words stay, the projection, both adapters and the local
compressor are drawn anew. `recipes/ablations/alternating.yaml` and `joint.yaml` then train with the same losses and
rates, on pages of the same kinds. What is told is exact match on held-out pages, of which each seed sees the same.

A run that was stopped goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging

import slime_vlm
from slime_vlm.evaluation.pages import answer_pages, summarise
from slime_vlm.pages import PageSettings
from slime_vlm.training.models import new_page_model
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.run import train

RECIPES = Path(__file__).parent.parent / "recipes"
ARMS = ("alternating", "joint")
GROUPS = ("all", "key-value", "table", "scene")
BETWEEN = ("model.projector.linear", "model.global_adapter.", "model.local_compressor.")
"""What is drawn anew."""


def make_start(folder: Path, seed: int) -> None:
    """Save nano with new parts between its encoder and its language model."""
    model, processor = slime_vlm.load("nano", device="cpu", dtype=torch.float32)
    fresh, _ = new_page_model(replace(load_recipe(RECIPES / "nano.yaml"), seed=seed), {})
    state = model.state_dict()
    for name, value in fresh.state_dict().items():
        if name.startswith(BETWEEN):
            state[name].copy_(value)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def train_arm(arm: str, seed: int, start: Path, out: Path, scale: float) -> Path:
    """Run a recipe; folder of its model."""
    path = RECIPES / "ablations" / f"{arm}.yaml"
    overrides = [f"seed={seed}", f"model.path={start}", "trackers=[]"]
    overrides += [f"stages.{s.name}.steps={max(1, round(scale * (s.steps or 0)))}" for s in load_recipe(path).stages]
    return train(path, out, resume=True, overrides=overrides)


def measure(folder: Path, pages: int) -> dict[str, Any]:
    """Exact match by group on held-out pages, with the question's own selection and from the global view alone."""
    settings = PageSettings(
        tiles=(2, 3),
        page_scale=(0.8, 1.3),
        text_px=(22, 34),
        split="heldout",
        kinds={"form": 0.25, "invoice": 0.15, "receipt": 0.15, "table": 0.35, "scene": 0.10},
    )
    results = {}
    for views in ("both", "global"):
        model, processor = slime_vlm.load(str(folder), device="cpu", dtype=torch.float32, views=views)
        results[views] = summarise(list(answer_pages(model, processor, settings, pages)))
    return results


def table(results: dict[str, Any], seeds: list[int]) -> list[str]:
    """Rows of Markdown: every run, then mean and spread."""
    columns = [f"{group}" for group in GROUPS]
    lines = [f"| | seed | {' | '.join(columns)} | global view alone |", "|" + " --- |" * (len(columns) + 3)]
    for arm in ARMS:
        runs = [results[f"{arm} {seed}"] for seed in seeds]
        for seed, run in zip(seeds, runs, strict=True):
            cells = [_share(run["both"], group) for group in GROUPS]
            lines.append(f"| {arm} | {seed} | {' | '.join(cells)} | {_share(run['global'], 'all')} |")
        if len(runs) > 1:
            means = [_mean(run["both"].get(group, {}).get("exact_match", 0.0) for run in runs) for group in GROUPS]
            seen = _mean(run["global"]["all"]["exact_match"] for run in runs)
            lines.append(f"| {arm} | mean | {' | '.join(means)} | {seen} |")
    return lines


def _share(groups: dict[str, Any], group: str) -> str:
    found = groups.get(group)
    return "-" if found is None else f"{found['exact_match']:.2f} ({found['questions']:.0f})"


def _mean(values: Any) -> str:
    numbers = list(values)
    return f"{statistics.mean(numbers):.2f} ± {statistics.stdev(numbers):.2f}"


def plot(results: dict[str, Any], seeds: list[int], path: Path) -> None:
    """A point a seed, a line at the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for k, (arm, colour) in enumerate(zip(ARMS, ("tab:blue", "tab:orange"), strict=True)):
        for x, group in enumerate(GROUPS):
            values = [results[f"{arm} {seed}"]["both"].get(group, {}).get("exact_match", 0.0) for seed in seeds]
            place = x + (k - 0.5) * 0.3
            axis.plot([place] * len(values), values, "o", color=colour, alpha=0.7, label=arm if x == 0 else None)
            axis.hlines(statistics.mean(values), place - 0.1, place + 0.1, color=colour)
    axis.set_xticks(range(len(GROUPS)), ["all questions", *GROUPS[1:]])
    axis.set_ylim(0, 1)
    axis.set_ylabel("exact match, held-out pages")
    axis.set_title(f"As many steps each; a point a seed ({len(seeds)}), a line at their mean", fontsize=10)
    axis.legend(frameon=False)
    axis.grid(axis="y", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="train only these")
    parser.add_argument("--pages", type=int, default=80, help="held-out pages")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipes' steps")
    parser.add_argument("--out", type=Path, default=Path("runs/alternating"))
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    console = Console(stderr=True)
    out = arguments.out
    for seed in arguments.seeds:
        start = out / f"start-{seed}"
        if not (start / "model.safetensors").exists():
            make_start(start, seed)
        for arm in arguments.arms:
            file = out / f"{arm}-{seed}.json"
            if not file.exists():
                folder = train_arm(arm, seed, start, out / f"{arm}-{seed}", arguments.scale)
                console.print(f"{arm}, seed {seed}: {arguments.pages} held-out pages")
                file.write_text(json.dumps(measure(folder, arguments.pages), indent=1))
    found = {f.stem.replace("-", " "): json.loads(f.read_text()) for f in sorted(out.glob("*.json"))}
    seeds = [seed for seed in arguments.seeds if all(f"{arm} {seed}" in found for arm in ARMS)]
    if not seeds:
        console.print("no seed has both arms yet")
        return
    print(f"{date.today()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)\n")
    print("\n".join(table(found, seeds)))
    if arguments.plot:
        plot(found, seeds, arguments.plot)


if __name__ == "__main__":
    main()
