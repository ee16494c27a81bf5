"""Compare training global, then local, then both parts with training all at once for as many steps (paper section 3.4).

    python benchmarks/alternating.py --plot docs/figures/alternating.png
    python benchmarks/alternating.py --scale 0.01 --pages 1 --seeds 1    # a quick check that it works

The paper starts from a trained vision encoder and a trained language model, and trains the parts between them. So does
this benchmark: it keeps nano's encoder, language model and table of visual words, and initialises the projection, both
adapters and the local compressor at random. The recipes `ablations/alternating` and `ablations/joint` then train
with the same losses and rates, on pages of the same kinds. The result is exact match on held-out pages, the same for
each seed.

Start the same command again to resume an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import date
from pathlib import Path
from typing import Any

import torch
from nano_ablation import exact_match, make_start, mean_and_spread, share
from rich.console import Console
from transformers.utils import logging

from slime_vlm.recipes import recipe_path
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.run import train

ARMS = ("alternating", "joint")
GROUPS = ("all", "key-value", "table", "scene")
NUM_LOCAL_QUERIES = 64


def train_arm(arm: str, seed: int, start: Path, out: Path, scale: float) -> Path:
    """Run a recipe, and return the folder of its model."""
    path = recipe_path(f"ablations/{arm}")
    overrides = [f"seed={seed}", f"model.path={start}", "trackers=[]"]
    overrides += [f"stages.{s.name}.steps={max(1, round(scale * (s.steps or 0)))}" for s in load_recipe(path).stages]
    return train(path, out, resume=True, overrides=overrides)


def measure(folder: Path, pages: int) -> dict[str, Any]:
    """Return exact match by group on held-out pages, with both views and with the global view alone."""
    return {views: exact_match(folder, pages, views) for views in ("both", "global")}


def table(results: dict[str, Any], seeds: list[int]) -> list[str]:
    """Return rows of Markdown: every run, then mean and spread."""
    columns = [f"{group}" for group in GROUPS]
    lines = [f"| | seed | {' | '.join(columns)} | global view alone |", "|" + " --- |" * (len(columns) + 3)]
    for arm in ARMS:
        runs = [results[f"{arm} {seed}"] for seed in seeds]
        for seed, run in zip(seeds, runs, strict=True):
            cells = [share(run["both"], group) for group in GROUPS]
            lines.append(f"| {arm} | {seed} | {' | '.join(cells)} | {share(run['global'], 'all')} |")
        if len(runs) > 1:
            means = [
                mean_and_spread(run["both"].get(group, {}).get("exact_match", 0.0) for run in runs) for group in GROUPS
            ]
            global_only = mean_and_spread(run["global"]["all"]["exact_match"] for run in runs)
            lines.append(f"| {arm} | mean | {' | '.join(means)} | {global_only} |")
    return lines


def plot(results: dict[str, Any], seeds: list[int], path: Path) -> None:
    """Plot one point per seed, and a line at the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for k, (arm, colour) in enumerate(zip(ARMS, ("tab:blue", "tab:orange"), strict=True)):
        for x, group in enumerate(GROUPS):
            values = [results[f"{arm} {seed}"]["both"].get(group, {}).get("exact_match", 0.0) for seed in seeds]
            shifted = x + (k - 0.5) * 0.3
            axis.plot([shifted] * len(values), values, "o", color=colour, alpha=0.7, label=arm if x == 0 else None)
            axis.hlines(statistics.mean(values), shifted - 0.1, shifted + 0.1, color=colour)
    axis.set_xticks(range(len(GROUPS)), ["all questions", *GROUPS[1:]])
    axis.set_ylim(0, 1)
    axis.set_ylabel("exact match, held-out pages")
    axis.set_title(f"Same number of steps; one point per seed ({len(seeds)}), a line at their mean", fontsize=10)
    axis.legend(frameon=False)
    axis.grid(axis="y", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="train only these arms")
    parser.add_argument("--pages", type=int, default=80, help="number of held-out pages")
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
            make_start(start, seed, NUM_LOCAL_QUERIES)
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
