"""`slime convert`: convert a checkpoint between the published and the native layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.cli.terminal import busy, quiet_transformers, shown


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder or hub id of a checkpoint in either layout.")],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="Folder to write the other layout to. Created if missing.")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="Folder or hub id of the base model, where SRC is a LoRA or holds adapter files alone."
        ),
    ] = None,
) -> None:
    """Convert a published SliME checkpoint to the native layout, which transformers loads, or back.

    Example: `slime convert yifanzhang114/SliME-Llama3-8B slime-8b`
    """
    with busy(f"converting {source}"):
        from slime_vlm.checkpoints.published.convert import convert as convert_folder

        quiet_transformers()
        report = convert_folder(source, target, base=base)
    typer.echo(shown(str(report)))
