"""`slime pages`: write rendered pages with questions and exact answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def pages(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the PNG files and pages.jsonl to.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of pages.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the pages. The same seed gives the same bytes.")] = 0,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", help="Render only this kind of page, for example `form`. Repeat the option to mix kinds."
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="Split of the pages: `train`, `heldout` (other values and layouts) or "
            "`heldout_fonts` (other fonts as well).",
        ),
    ] = "train",
    source: Annotated[
        str,
        typer.Option(
            "--source",
            help="Source of the pages: `renderer`, `typeset` (PDFs) or `browser` (documents laid out by Chromium).",
        ),
    ] = "renderer",
    look: Annotated[
        str,
        typer.Option(
            "--look",
            help="Degradation of the pages: `clean` (none), `light`, `scan`, `copy`, `fax`, `camera` or `mixed`.",
        ),
    ] = "clean",
    pdfs: Annotated[
        Path | None,
        typer.Option("--pdfs", help="Folder of PDFs from scripts/fetch_typeset_pdfs.py, for `typeset` pages."),
    ] = None,
    fonts: Annotated[
        Path | None,
        typer.Option(
            "--fonts",
            help="`pillow`: the one font that needs no extra package, for pages of the renderer. Or a folder of fonts "
            "from scripts/fetch_fonts.py, for `browser` pages.",
        ),
    ] = None,
) -> None:
    """Render pages with questions and answers.

    Writes PNG files and one JSONL file of conversations, which `slime train` and `slime data check` read.

    Example: `slime pages --out pages --count 20 --kind form --split heldout`
    """
    from slime_vlm.errors import ConfigError
    from slime_vlm.pages import PageSettings, write_pages

    if source != "renderer" or look != "clean":
        from slime_vlm.pages.writing_readable import page_source, write_readable_pages

        if kind:
            raise ConfigError("slime pages: --kind works only with --source renderer and --look clean; leave it out")
        write_readable_pages(out, count, seed, page_source(source, split, pdfs=pdfs, fonts=fonts), look)
        typer.echo(f"{count} pages in {out}")
        return
    if fonts not in (None, Path("pillow")):
        raise ConfigError(f"--fonts {fonts}: expected pillow, or --source browser; leave it out for all fonts")
    settings: dict[str, Any] = {"split": split, "fonts": "all" if fonts is None else "pillow"}
    if kind:
        settings["kinds"] = dict.fromkeys(kind, 1.0)
    write_pages(out, count, seed, PageSettings(**settings))
    typer.echo(f"{count} pages in {out}")
