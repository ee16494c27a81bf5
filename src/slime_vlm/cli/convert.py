"""`slime convert`: a checkpoint in the published layout becomes a native one, and the other way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.cli.terminal import busy, quiet_transformers


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder or hub id, in the published or native layout.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write in the other; made if missing.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Folder or hub id of what a LoRA or adapter files were trained on.")
    ] = None,
) -> None:
    """Turn a published SliME checkpoint into one that transformers loads, or a native one into the published layout.

    Example: slime convert yifanzhang114/SliME-Llama3-8B slime-8b
    """
    with busy(f"converting {source}"):
        from slime_vlm.checkpoints.published.convert import convert as convert_folder

        quiet_transformers()
        report = convert_folder(source, target, base=base)
    typer.echo(str(report))
