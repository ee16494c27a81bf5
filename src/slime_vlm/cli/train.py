"""`slime train`: runs the stages of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, for example recipes/nano.yaml.")],
    stage: Annotated[
        list[str] | None, typer.Option("--stage", help="Run this stage only; may be given several times.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run.", show_default="runs/NAME OF THE RECIPE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out where it was stopped.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe, what trains and the memory, then stop.")
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe, dotted.")
    ] = None,
) -> None:
    """Train a model by the stages of a recipe.

    Example: slime train recipes/nano.yaml --out runs/nano --dry-run
    """
    from slime_vlm.training.run import train as run_recipe

    run_recipe(recipe, out, stage or [], resume, dry_run, overrides or [])
