"""The reports of a stage beside its weights: environment, curves, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from slime_vlm.data import MixtureOrder
from slime_vlm.training.checkpoint_manifest import set_aside, write_at_once
from slime_vlm.training.parts import PART_PREFIXES
from slime_vlm.training.recipe import Recipe, Stage
from slime_vlm.training.reporting.curves import draw_curves
from slime_vlm.training.reporting.environment import describe_data, describe_environment
from slime_vlm.training.reporting.model_card import write_card
from slime_vlm.training.run_folder import CARD_FILE, STAGE_FILE, stages_before

ENVIRONMENT_FILE = "environment.json"
CURVES_FILE = "curves.png"


def note_start(folder: Path, recipe_path: Path, stage: Stage, dataset: Any, processes: int) -> None:
    """Record a start of the stage in its folder: versions, machine, commit, data.

    Args:
        folder: Folder of the stage.
        recipe_path: File of the recipe.
        stage: The stage.
        dataset: Dataset of the stage.
        processes: Number of processes of the run.
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
    if not path.is_file():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        # Notes alone, which no weight depends on.
        set_aside(path)
        return []


def note_curves(folder: Path, title: str, history: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Draw the curves of a stage, which may be unfinished, into its folder."""
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
    """Return the record of a finished stage, as JSON types.

    Args:
        stage: The stage.
        steps: Optimizer steps.
        history: Trainer's `log_history`.
        totals: Totals of its `Speedometer`.
        starts: Entries of `note_start`.
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
    """Write the model card of a finished stage into the folder of its model.

    Args:
        recipe: The recipe.
        stage: The stage.
        folder: Folder of the stage.
        steps: Optimizer steps.
        history: Trainer's `log_history`.
        totals: Totals of its `Speedometer`.

    Returns:
        The record of the stage, for its marker file.
    """
    record = stage_record(stage, steps, history, totals, _starts(folder))
    before = [folder.parent / name / "model" / STAGE_FILE for name in stages_before(recipe, stage)]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in before if path.is_file()]
    write_at_once(folder / "model" / CARD_FILE, write_card(recipe, stage, records, record))
    return record
