"""`slime convert`: a checkpoint in the published layout becomes a native one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.cli.terminal import busy, quiet_transformers


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder in the published layout.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; made if missing.")],
) -> None:
    """Turn a published SliME checkpoint into one that transformers loads.

    Example: slime convert SliME-Llama3-8B slime-8b
    """
    with busy(f"converting {source}"):
        from slime_vlm.convert import convert as convert_folder

        quiet_transformers()
        report = convert_folder(source, target)
    typer.echo(str(report))
