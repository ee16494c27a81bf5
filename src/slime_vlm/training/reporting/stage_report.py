"""What a stage leaves behind beside its weights: where and on what it ran, its curves, its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from slime_vlm.data import MixtureOrder
from slime_vlm.training.parts import PART_PREFIXES
from slime_vlm.training.recipe import Recipe, Stage
from slime_vlm.training.reporting.curves import draw_curves
from slime_vlm.training.reporting.environment import describe_data, describe_environment
from slime_vlm.training.reporting.model_card import write_card
from slime_vlm.training.run_folder import STAGE_FILE, stages_before, write_at_once

ENVIRONMENT_FILE = "environment.json"
CURVES_FILE = "curves.png"
CARD_FILE = "README.md"


def note_start(folder: Path, recipe_path: Path, stage: Stage, dataset: Any, processes: int) -> None:
    """Add a start of the stage to its folder: versions, machine, commit, data.

    Args:
        folder: of the stage.
        recipe_path: the recipe's file.
        stage: the stage.
        dataset: what it takes its samples from.
        processes: of the run.
    """
    if isinstance(dataset, MixtureOrder):
        data = describe_data(stage.data.parts, dataset.dataset)
    else:
        data = [{"pages": len(dataset), "settings": stage.data.pages}]
    entry = {**describe_environment(recipe_path, processes), "data": data}
    folder.mkdir(parents=True, exist_ok=True)
    write_at_once(folder / ENVIRONMENT_FILE, json.dumps([*_starts(folder), entry], indent=1))


def _starts(folder: Path) -> list[dict[str, Any]]:
    path = folder / ENVIRONMENT_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def note_curves(folder: Path, title: str, history: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Draw the curves of a stage into its folder, as far as it came."""
    try:
        draw_curves(history, title, folder / CURVES_FILE)
    except ModuleNotFoundError as error:
        console.print(f'no {CURVES_FILE}: {error.name} is not installed (pip install "slime-vlm[eval]")', markup=False)


def stage_record(
    stage: Stage,
    steps: int,
    history: Sequence[Mapping[str, Any]],
    totals: Mapping[str, float],
    starts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What is remembered of a finished stage, as JSON types.

    Args:
        stage: the stage.
        steps: optimizer steps.
        history: Trainer's `log_history`.
        totals: of its `Speedometer`.
        starts: entries of `note_start`.
    """
    points = [entry for entry in history if "loss" in entry]
    last = starts[-1] if starts else {}
    return {
        "stage": stage.name,
        "trained": [prefix for part in stage.trains for prefix in PART_PREFIXES[part]],
        "parts": [*stage.trains, *(["(low-rank)"] if stage.lora else [])],
        "steps": steps,
        "batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "last": points[-1] if points else {},
        "losses": {"first": points[0]["loss"], "last": points[-1]["loss"]} if points else {},
        "totals": dict(totals),
        "environment": {key: value for key, value in last.items() if key != "data"},
        "data": last.get("data", []),
    }


def note_end(
    recipe: Recipe,
    stage: Stage,
    folder: Path,
    steps: int,
    history: Sequence[Mapping[str, Any]],
    totals: Mapping[str, float],
) -> dict[str, Any]:
    """Write the card of a finished stage into its model's folder.

    Args:
        recipe: the recipe.
        stage: the stage.
        folder: of the stage.
        steps: optimizer steps.
        history: Trainer's `log_history`.
        totals: of its `Speedometer`.

    Returns:
        What the marker of the stage says.
    """
    record = stage_record(stage, steps, history, totals, _starts(folder))
    before = [folder.parent / name / "model" / STAGE_FILE for name in stages_before(recipe, stage)]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in before if path.is_file()]
    write_at_once(folder / "model" / CARD_FILE, write_card(recipe, stage, records, record))
    return record
