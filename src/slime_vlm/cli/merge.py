"""`slime merge`: merge a LoRA adapter into its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.cli.terminal import busy, quiet_transformers, shown


def merge(
    source: Annotated[
        str, typer.Argument(metavar="ADAPTER", help="Folder or hub id of a LoRA adapter of a SliME model.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write the merged model to. Created if missing.")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="Folder or hub id of the base model.", show_default="the one that the adapter recorded"
        ),
    ] = None,
) -> None:
    """Merge a LoRA adapter into the model it was trained on.

    Before it writes, the command checks on a seeded batch that the merged model gives the same logits.

    Example: `slime merge runs/finetune-lora-24gb/3/model slime-7b-mine`
    """
    with busy(f"merging {source}"):
        from slime_vlm.checkpoints.lora.merge import merge as merge_folder

        quiet_transformers()
        report = merge_folder(source, target, base=base)
    typer.echo(shown(str(report)))
