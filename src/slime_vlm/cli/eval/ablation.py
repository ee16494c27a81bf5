"""`slime eval ablation`: what fewer image tokens, other views and other image sizes cost and save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.cli.config_fields import parse_config_fields
from slime_vlm.cli.eval.options import Overrides, RunFolder
from slime_vlm.cli.eval.pages import Split
from slime_vlm.cli.model_options import Device, Dtype, Fast, Model
from slime_vlm.cli.terminal import quiet_transformers


def ablation(
    out: RunFolder,
    model: Model = "nano",
    settings: Annotated[
        str,
        typer.Option(
            "--settings",
            help="Groups of settings to compare, separated by commas: `top-p`, `share`, `budget`, `views`, `gate`, "
            "`selector`, `resized`, `rendered`, `ocr`. Single settings such as `best 64` work as well.",
            show_default="all",
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Number of pages per seed, or of records.", show_default="10 pages, all records"
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Number of sets of rendered pages, each with a seed of its own.")
    ] = 3,
    tiles: Annotated[int, typer.Option("--tiles", min=2, help="Number of tiles of a rendered page.")] = 6,
    split: Split = "heldout",
    records: Annotated[
        Path | None,
        typer.Option("--records", help="Ask about your own images: records in the published format, with answers."),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    fast: Fast = False,
    override: Overrides = None,
) -> None:
    """Compare settings of one model on the same questions: fewer image tokens, other views, other image sizes.

    Measures accuracy, seconds and memory against image tokens, on held-out rendered pages or on your own images.
    Prints the report as Markdown, and writes it with results.json and plots to `--out`. Run the same command
    again to resume after an interruption. For a quick table of one model, use `slime eval pages`.

    Example: `slime eval ablation --model nano --settings top-p,share --out runs/ablation`
    """
    from rich.console import Console

    from slime_vlm.evaluation.ablation.settings import find_settings

    found = find_settings(settings)
    overrides = parse_config_fields(override or [], "selector_top_p=0.5")
    # Imports torch. A mistyped option is reported before that.
    from slime_vlm.evaluation.ablation.running import AblationOptions, run_ablation

    options = AblationOptions(
        model=model,
        out=out,
        settings=found,
        limit=limit or (10 if records is None else None),
        seeds=seeds,
        tiles=tiles,
        split=split,
        records=records,
        device=device,
        dtype=dtype,
        fast=fast,
        overrides=overrides,
        ocr_wanted=bool(settings.strip()) and any(setting.ocr for setting in found),
    )
    quiet_transformers()
    report = run_ablation(options, Console(stderr=True))
    if report:
        typer.echo(report)
        typer.echo(f"report: {out / 'results.md'}; numbers and plots are beside it", err=True)
