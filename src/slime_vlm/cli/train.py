"""`slime train`: runs the stages of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
        bool,
        typer.Option("--dry-run", help="Print the resolved recipe, what trains, memory, tokens and hours, then stop."),
    ] = False,
    tflops: Annotated[
        float | None,
        typer.Option(
            help="Peak of one GPU in TFLOP/s: --dry-run plans hours with it, a run its utilisation.",
            show_default="measured at the start of a run",
        ),
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs that --dry-run plans for.", show_default="1")] = None,
    utilisation: Annotated[
        float | None, typer.Option(help="Share of the peak that --dry-run plans with.", show_default="0.4")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe, dotted.")
    ] = None,
) -> None:
    """Train a model by the stages of a recipe.

    Example: slime train recipes/nano.yaml --out runs/nano --dry-run
    """
    from slime_vlm.errors import ConfigError

    options: dict[str, Any] = {"gpus": gpus, "utilisation": utilisation}
    planned = {name: value for name, value in options.items() if value is not None}
    if planned and not dry_run:
        raise ConfigError(
            f"--{next(iter(planned))} is for the plan of --dry-run alone: a run takes the GPUs that torchrun or "
            "accelerate launch start it on, and measures; leave it out, or add --dry-run"
        )

    from slime_vlm.training.planning.dry_run import Hardware
    from slime_vlm.training.run import train as run_recipe

    run_recipe(recipe, out, stage or [], resume, dry_run, overrides or [], Hardware(tflops=tflops, **planned))
