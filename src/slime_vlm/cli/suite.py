"""`slime eval suite`: what fewer image tokens cost and save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.cli.measured_model import Device, Dtype, Model, Overrides, RunFolder, parse_overrides
from slime_vlm.cli.terminal import quiet_transformers

SUITES = ("pages",)


def suite(
    name: Annotated[str, typer.Argument(help="Which suite; there is one, `pages`.")],
    out: RunFolder,
    model: Model = "nano",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Pages of each seed, or records.", show_default="10, all records"),
    ] = None,
    settings: Annotated[
        str,
        typer.Option(
            "--settings",
            help="Only these: top-p, share, budget, views, gate, selector, resized, rendered, ocr, or single ones.",
            show_default="all",
        ),
    ] = "",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Sets of rendered pages.")] = 3,
    tiles: Annotated[int, typer.Option("--tiles", min=2, help="Tiles of a rendered page.")] = 6,
    split: Annotated[str, typer.Option("--split", help="heldout, heldout_fonts or train.")] = "heldout",
    records: Annotated[
        Path | None, typer.Option("--records", help="Your own images: records in the published format.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    override: Overrides = None,
) -> None:
    """Compare settings of a model on the same questions: fewer image tokens, other views, another image size.

    Accuracy, seconds and memory against image tokens on held-out rendered pages or your own images, with intervals
    and plots. For a quick table of one model by kind of page take `slime eval pages`.

    Interrupted, the same command goes on where it stopped. It prints the report as Markdown.

    Example: slime eval suite pages --model nano --out runs/suite
    """
    from rich.console import Console

    from slime_vlm.errors import ConfigError
    from slime_vlm.evaluation.ablation.settings import find_settings

    if name not in SUITES:
        raise ConfigError(f"'{name}' is no suite, expected {' or '.join(SUITES)}")
    found, overrides = find_settings(settings), parse_overrides(override or [])
    # Imports torch, which a slip of the pen need not wait for.
    from slime_vlm.evaluation.ablation.running import SuiteOptions, run_suite

    options = SuiteOptions(
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
        overrides=overrides,
        ocr_wanted=bool(settings.strip()) and any(setting.ocr for setting in found),
    )
    quiet_transformers()
    report = run_suite(options, Console(stderr=True))
    if report:
        typer.echo(report)
        typer.echo(f"{out / 'results.md'} has the same, beside it are results.json and plots", err=True)
