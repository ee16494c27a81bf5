"""`slime batch`: answer the records of a file, and resume after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.checkpoints.shipped import DEFAULT_MODEL
from slime_vlm.cli.images import AllowUrl, Dpi, Frames, MaxDownload, MaxMemory, MaxPixels, WindowText, image_opener
from slime_vlm.cli.model_options import (
    Device,
    Dtype,
    Fast,
    MaxLocalTokens,
    MaxNewTokens,
    MaxTiles,
    Model,
    Quantization,
    config_changes,
)
from slime_vlm.cli.terminal import collector_paused, quiet_transformers, shown

_CLUSTER = "Many machines"


def batch(
    records: Annotated[
        str,
        typer.Argument(
            metavar="RECORDS",
            help="JSONL or JSON file of records with `id`, `image` or `images`, and `question`. Training records of "
            "any source are read, too.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the answers. The same one resumes.")],
    model: Model = DEFAULT_MODEL,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Folder, zip or tar file that image paths are relative to.",
            show_default="beside the records",
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = 256,
    slots: Annotated[int, typer.Option(min=1, help="Records that are answered together.")] = 16,
    max_length: Annotated[
        int, typer.Option(min=16, help="Longest prompt with its answer, in tokens. The model's own limit goes first.")
    ] = 4096,
    max_local_tokens: MaxLocalTokens = None,
    max_tiles: MaxTiles = None,
    device: Device = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    fast: Fast = False,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
    dpi: Dpi = None,
    window: WindowText = None,
    allow_url: AllowUrl = False,
    max_download: MaxDownload = None,
    frames: Frames = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Answer on a Ray cluster: HOST:PORT, `auto` for the one that this machine is part of, `local` to "
            "start one here. Models and images must have the same paths on all machines.",
            show_default="in this process",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            "--ray-workers",
            min=1,
            help="How many workers load the model. `--slots` is for each.",
            show_default="one for each GPU, else one for each machine",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
) -> None:
    """Answer the records of a file, offline.

    Writes answers.jsonl to `--out`, one line for each record. Run the same command again to resume after an
    interruption or a kill: answered records are not asked again. Records that cannot be answered are listed in
    errors.jsonl, and the others go on.

    Exit code 0 means that every record is answered, 1 that some cannot be, 2 that the job cannot run.

    Example: `slime batch questions.jsonl --out answers`
    """
    from rich.console import Console

    with collector_paused():
        from slime_vlm.batch.job import run_job
        from slime_vlm.batch.options import JobOptions
        from slime_vlm.serving.settings import read_settings

    quiet_transformers()
    options = JobOptions(
        records=records,
        out=out,
        model=model,
        limits=read_settings(slots=slots, max_length=max_length, max_tokens=max_new_tokens),
        # As for all records: they may come from others.
        open_image=image_opener(max_pixels, max_memory, dpi, window, allow_url, max_download, frames, untrusted=True),
        images=images,
        device=device,
        dtype=dtype,
        quantization=quantization,
        fast=fast,
        overrides=config_changes(max_local_tokens, max_tiles),
        settings={
            "--images": None if images is None else str(images),
            "--max-new-tokens": max_new_tokens,
            "--max-length": max_length,
            "--max-local-tokens": max_local_tokens,
            "--max-tiles": max_tiles,
            "--dtype": dtype,
            "--quantization": quantization,
            "--fast": fast or None,
            "--dpi": dpi,
            "--window": window,
            "--frames": frames,
        },
        ray=ray,
        ray_workers=ray_workers,
    )
    result = run_job(options, Console(stderr=True))
    done = f"{result.num_answers:,} of {result.num_records:,} records answered"
    if result.is_interrupted:
        typer.echo(f"slime: interrupted, {done}; run the same command again to go on", err=True)
        raise typer.Exit(130)
    typer.echo(shown(f"{done}: {out / 'answers.jsonl'}"))
    if result.num_errors:
        typer.echo(shown(f"{result.num_errors:,} cannot be answered: {out / 'errors.jsonl'}"))
        raise typer.Exit(1)
