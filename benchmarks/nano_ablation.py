"""Shared by the ablations at nano's size: the start of every arm, and the questions that measure it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import slime_vlm
from slime_vlm.evaluation.ablation.memory import measure_growth
from slime_vlm.evaluation.pages.exact_match import answer_pages, summarise
from slime_vlm.pages import PageSettings
from slime_vlm.training.pages.new_model import new_page_model
from slime_vlm.training.recipe import load_recipe

HELD_OUT = PageSettings(
    tiles=(2, 3),
    page_scale=(0.8, 1.3),
    text_px=(22, 34),
    split="heldout",
    kinds={"form": 0.25, "invoice": 0.15, "receipt": 0.15, "table": 0.35, "scene": 0.10},
)
BETWEEN = ("model.projector.linear", "model.global_adapter.", "model.local_compressor.")
"""Prefixes of the weights that are initialised at random."""


def make_start(folder: Path, seed: int, num_local_queries: int) -> None:
    """Save nano with new parts between its encoder and its language model."""
    model, _processor = slime_vlm.load("nano", device="cpu", dtype=torch.float32)
    recipe = replace(load_recipe("nano"), seed=seed)
    fresh, fresh_processor = new_page_model(recipe, {"num_local_queries": num_local_queries})
    state = fresh.state_dict()
    for name, value in model.state_dict().items():
        if not name.startswith(BETWEEN):
            state[name].copy_(value)
    fresh.generation_config = model.generation_config
    fresh_processor.save_pretrained(folder)
    # Saved last: if the weights exist, the start is complete.
    fresh.save_pretrained(folder)


def exact_match(folder: Path, pages: int, views: str = "both") -> dict[str, Any]:
    """Return exact match by group on held-out pages of two and three tiles, which are the same for every model."""
    model, processor = slime_vlm.load(str(folder), device="cpu", dtype=torch.float32, views=views)
    return summarise(list(answer_pages(model, processor, HELD_OUT, pages)))


def cost(folder: Path, pages: int) -> tuple[float, float | None]:
    """Return seconds per question, and the peak megabytes of rendering and answering on top of the model."""
    model, processor = slime_vlm.load(str(folder), device="cpu", dtype=torch.float32)
    # One page that is not measured, because libraries load on first use.
    list(answer_pages(model, processor, HELD_OUT, 1))
    with measure_growth(model.device) as growth:
        answers = summarise(list(answer_pages(model, processor, HELD_OUT, pages)))
    return answers["all"]["seconds"], growth.megabytes


def share(groups: dict[str, Any], group: str) -> str:
    """Return exact match of a group, and its number of questions."""
    found = groups.get(group)
    return "-" if found is None else f"{found['exact_match']:.2f} ({found['questions']:.0f})"


def mean_and_spread(values: Iterable[float], digits: int = 2) -> str:
    """Return mean and standard deviation over seeds."""
    numbers = list(values)
    spread = f" ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.{digits}f}{spread}"
