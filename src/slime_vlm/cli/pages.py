"""`slime pages`: writes rendered pages with exact questions and answers, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pages(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the PNG files and pages.jsonl.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many pages.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 0,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Only this kind of page (form, table, …); several are mixed.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, heldout or heldout_fonts.")] = "train",
) -> None:
    """Render pages with questions and answers: PNG files and one JSONL of conversations.

    Example: slime pages --out pages -n 20 --kind form --split heldout
    """
    from slime_vlm.pages import PageSettings, write_pages

    settings = {"split": split, "kinds": dict.fromkeys(kind, 1.0)} if kind else {"split": split}
    write_pages(out, count, seed, PageSettings(**settings))
    typer.echo(f"{count} pages in {out}")
