"""`slime train`: run the stages of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="Recipe file, or the name of a shipped one (`slime recipes list`).")
    ],
    stage: Annotated[list[str] | None, typer.Option("--stage", help="Run only this stage. Repeatable.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the run: checkpoints, logs and plots.",
            show_default="runs/NAME OF THE RECIPE",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Folder, zip or tar file that image paths of the records are relative to.",
            show_default="the recipe's, or beside the records",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in `--out` from its last checkpoint.")
    ] = False,
    accept_data: Annotated[
        bool,
        typer.Option(
            "--accept-data", help="With `--resume`: continue though records or images changed since the stage began."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the resolved recipe and its plan (trained parts, memory, tokens, hours), and exit."
        ),
    ] = False,
    tflops: Annotated[
        float | None,
        typer.Option(
            "--tflops",
            help="Peak speed of one GPU in TFLOP/s. `--dry-run` computes hours from it, a run its utilisation.",
            show_default="measured at the start of a run",
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="Number of GPUs that `--dry-run` plans for.", show_default="1")
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(
            "--utilisation",
            help="Share of the peak speed that `--dry-run` plans with, from 0 to 1.",
            show_default="0.4",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the recipe by its dotted key, for example `seed=1`. Repeatable.",
        ),
    ] = None,
) -> None:
    """Train a model by the stages of a recipe.

    On several GPUs, start it with `torchrun` or `accelerate launch`: see docs/training.md.

    Example: `slime train nano --out runs/nano --dry-run`
    """
    from slime_vlm.errors import ConfigError

    options: dict[str, Any] = {"gpus": gpus, "utilisation": utilisation}
    planned = {name: value for name, value in options.items() if value is not None}
    if planned and not dry_run:
        raise ConfigError(
            f"--{next(iter(planned))} is only for the plan of --dry-run. A run uses the GPUs that torchrun or "
            "accelerate launch start it on, and measures its speed; leave the option out, or add --dry-run"
        )

    if accept_data and not resume:
        raise ConfigError("--accept-data is only for --resume: add it, or leave the option out")

    from slime_vlm.training.planning.dry_run import Hardware
    from slime_vlm.training.run import train as run_recipe

    hardware = Hardware(tflops=tflops, **planned)
    run_recipe(recipe, out, stage or [], resume, dry_run, overrides or [], hardware, images, accept_data)
