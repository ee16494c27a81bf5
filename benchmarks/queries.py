"""Measure accuracy against the number of queries per tile of the local compressor (paper section 3.3: 144).

    python benchmarks/queries.py --plot docs/figures/queries.png
    python benchmarks/queries.py --scale 0.01 --pages 1 --seeds 1    # a quick check that it works

The number of queries cannot be changed in a trained model, so one model is trained for each. The projection, both
adapters and a local compressor with that many queries are initialised at random. The recipe `ablations/joint` trains
them and nano's language model. nano's vision encoder, which gives 256 features per tile, and its table of visual words
are kept. The result is exact match on held-out pages, which are the same for every model.

Start the same command again to resume an interrupted run. Several processes may share the work (`--queries`,
`--seeds`): each prints all results that exist when it ends.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from machine import machine
from nano_ablation import cost, exact_match, make_start, mean_and_spread, share
from rich.console import Console
from transformers.utils import logging

from slime_vlm.recipes import recipe_path
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.run import train

RECIPE = recipe_path("ablations/joint")
QUERIES = (16, 36, 64, 144)
GROUPS = ("all", "key-value", "table", "scene")
Results = dict[tuple[int, int], dict[str, Any]]
"""The summaries of `summarise`, by queries and seed."""


def model_folder(out: Path, queries: int, seed: int) -> Path:
    """Return the folder of the trained model of a run."""
    return out / f"queries-{queries}-{seed}" / "joint" / "model"


def run(queries: int, seed: int, out: Path, scale: float, pages: int) -> None:
    """Train a model with so many queries, and write its exact match."""
    start = out / f"start-{queries}-{seed}"
    if not (start / "model.safetensors").exists():
        make_start(start, seed, queries)
    overrides = [f"seed={seed}", f"model.path={start}", "trackers=[]"]
    overrides += [f"stages.{s.name}.steps={max(1, round(scale * (s.steps or 0)))}" for s in load_recipe(RECIPE).stages]
    folder = train(RECIPE, model_folder(out, queries, seed).parents[1], resume=True, overrides=overrides)
    (out / f"{queries}-{seed}.json").write_text(json.dumps(exact_match(folder, pages), indent=1))


def table(results: Results, costs: dict[int, tuple[float, float | None]]) -> list[str]:
    """Return rows of Markdown, one per number of queries, with mean and spread over seeds."""
    lines = [f"| queries/tile | seeds | {' | '.join(GROUPS)} | local tokens | kept | s/question | MB |"]
    lines.append("|" + " --- |" * (len(GROUPS) + 6))
    for queries in sorted({queries for queries, _seed in results}):
        runs = [run for (number, _seed), run in sorted(results.items()) if number == queries]
        if len(runs) == 1:
            cells = [share(runs[0], group) for group in GROUPS]
        else:
            cells = [mean_and_spread(run.get(group, {}).get("exact_match", 0.0) for run in runs) for group in GROUPS]
        tokens = [f"{statistics.mean(run['all'][key] for run in runs):.0f}" for key in ("local_tokens", "kept_tokens")]
        seconds, megabytes = costs[queries]
        cells += [*tokens, f"{seconds:.3f}", "-" if megabytes is None else f"{megabytes:.0f}"]
        lines.append(f"| {queries} | {len(runs)} | {' | '.join(cells)} |")
    return lines


def plot(results: Results, path: Path) -> None:
    """Plot exact match of every run against its queries, with a line through the means of each kind of question."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axis = figure.subplots()
    numbers = sorted({queries for queries, _seed in results})
    for group, colour in zip(GROUPS, ("black", "tab:blue", "tab:orange", "tab:green"), strict=True):
        found = {(q, seed): run.get(group, {}).get("exact_match", 0.0) for (q, seed), run in results.items()}
        means = [statistics.mean(value for (q, _seed), value in found.items() if q == number) for number in numbers]
        axis.plot(numbers, means, color=colour, label="all questions" if group == "all" else group)
        axis.plot([q for q, _seed in found], list(found.values()), "o", color=colour, alpha=0.5, markersize=4)
    axis.set_xscale("log")
    axis.set_xticks(numbers, [str(number) for number in numbers])
    axis.minorticks_off()
    axis.set_xlabel("queries per tile (the vision encoder gives 256 features)")
    axis.set_ylabel("exact match, held-out pages")
    axis.set_ylim(0, 1)
    seeds = len({seed for _queries, seed in results})
    axis.set_title(f"Same number of steps; one point per seed ({seeds}), lines through their means", fontsize=10)
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, nargs="+", default=list(QUERIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pages", type=int, default=80, help="number of held-out pages")
    parser.add_argument(
        "--cost-pages", type=int, default=10, help="number of pages on which seconds and memory are measured"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipe's steps")
    parser.add_argument("--out", type=Path, default=Path("runs/queries"))
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    console = Console(stderr=True)
    for seed in arguments.seeds:
        for queries in arguments.queries:
            if not (arguments.out / f"{queries}-{seed}.json").exists():
                console.print(f"{queries} queries per tile, seed {seed}")
                run(queries, seed, arguments.out, arguments.scale, arguments.pages)
    results: Results = {}
    for file in arguments.out.glob("*-*.json"):
        queries, seed = map(int, file.stem.split("-"))
        results[queries, seed] = json.loads(file.read_text())
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)\n")
    # Measured one after another, once all models are trained.
    models = {queries: model_folder(arguments.out, queries, seed) for queries, seed in sorted(results)}
    costs = {queries: cost(folder, arguments.cost_pages) for queries, folder in models.items()}
    print("\n".join(table(results, costs)))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
