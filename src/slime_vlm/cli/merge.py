"""`slime merge`: folds a LoRA that was kept apart into its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.cli.terminal import busy, quiet_transformers


def merge(
    source: Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder or hub id of a LoRA over a SliME.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the whole model to; made if missing.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Folder or hub id of its base.", show_default="what the LoRA recorded")
    ] = None,
) -> None:
    """Fold a LoRA into the model it was trained on, after proving on a seeded batch that logits stay equal.

    Example: slime merge runs/finetune-lora-24gb/3/model slime-7b-mine
    """
    with busy(f"merging {source}"):
        from slime_vlm.checkpoints.lora.merge import merge as merge_folder

        quiet_transformers()
        report = merge_folder(source, target, base=base)
    typer.echo(str(report))
