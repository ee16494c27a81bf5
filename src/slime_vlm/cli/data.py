"""`slime data`: checks records before training, and builds SMR from its raw sets."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(no_args_is_help=True, help="Check training data, and build SMR from its raw sets.")


@app.callback()
def _group() -> None:
    """Check training data, and build SMR from its raw sets."""


@app.command(no_args_is_help=True)
def check(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="JSON, JSONL, Parquet or tar files, 'shards/*.tar', folders, hub ids (owner/name).",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder, zip or tar that image paths start from.", show_default="beside the records"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Count this model's tokens: nano, a folder or a hub id.")
    ] = None,
    max_length: Annotated[int, typer.Option("--max-length", min=1, help="Most tokens of a record.")] = 2048,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes that open images.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the whole report to this file.")] = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="OUT", help="Write a cleaned copy to this new JSONL file.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="KIND", help="A kind of finding that is no error; repeatable."),
    ] = None,
    config: Annotated[str | None, typer.Option("--config", help="Configuration of a hub data set.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split of a hub data set.", show_default="train")] = None,
) -> None:
    """Check records: every image is decoded, every conversation read.

    Exit code 0 when all is well, 1 when something is wrong, 2 when the check could not be made.

    Example: slime data check mine.jsonl --images photos --model nano --workers 8 --fix clean.jsonl
    """
    from rich.console import Console

    from slime_vlm.cli.terminal import quiet_transformers
    from slime_vlm.data import open_source
    from slime_vlm.data.check import KINDS, Report, check_source, check_target, write_repaired
    from slime_vlm.errors import ConfigError
    from slime_vlm.training.recipe.rules import nearest

    for kind in allow or []:
        if kind not in KINDS:
            raise ConfigError(f"--allow {kind}: there is no such kind of finding; {nearest(kind, KINDS)}")
    if fix is not None:
        if len(sources) > 1:
            raise ConfigError(f"--fix writes a copy of one source, {len(sources)} are given; take one at a time")
        check_target(fix)
    for path in filter(None, (fix, json_file)):
        # Before hours of checking, and not after them.
        path.parent.mkdir(parents=True, exist_ok=True)
    if model is not None:
        quiet_transformers()
    opened = [open_source(source, images, config, split) for source in sources]
    reports = []
    with _progress() as progress:
        for source in opened:
            task = progress.add_task(f"checking {Path(source.name).name}", total=len(source))
            reports.append(check_source(source, model, max_length, workers, partial(progress.advance, task)))
    report = Report(reports, allow or [])
    console = Console(markup=False)  # names of files may look like it
    for table in report.tables():
        console.print(table)
        console.print()
    if model is None:
        console.print("Tokens are not counted and tiles are those of the published rule without --model.")
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        console.print(f"report: {json_file}", soft_wrap=True)
    if fix is not None:
        with _progress() as progress:
            task = progress.add_task(f"writing {fix.name}", total=len(opened[0]))
            advance = partial(progress.advance, task)
            counts = write_repaired(opened[0], reports[0], fix, model, max_length, allow or [], advance)
        left_out = ", ".join(f"{n:,} {kind}" for kind, n in counts.items() if kind in KINDS)
        kept = f"{counts['copied']:,} copied, {counts['repaired']:,} repaired, left out: {left_out or 'none'}"
        console.print(f"cleaned copy: {fix} ({kept})", soft_wrap=True)
        if fix.parent.resolve() != opened[0].images.resolve():
            console.print(f"its image paths start at {opened[0].images}: give --images with it", soft_wrap=True)
    if not report.clean:
        raise typer.Exit(1)


@app.command("build-smr", no_args_is_help=True)
def build_smr(
    root: Annotated[Path, typer.Option("--root", help="Folder that holds the raw sets; image paths start there.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The JSONL file to write; its report is OUT.report.json.")],
    only: Annotated[list[str] | None, typer.Option("--only", metavar="SET", help="Take this set; repeatable.")] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option("--folder", metavar="SET=FOLDER", help="Where a set lies below the root; repeatable."),
    ] = None,
    with_mathvision_leak: Annotated[
        bool,
        typer.Option(
            "--with-mathvision-leak",
            help="Take MATH-Vision, too, as the authors did. It has no training split: they train on its test split "
            "without test-mini, so only test-mini measures such a model.",
        ),
    ] = False,
) -> None:
    """Build SMR, the paper's science and mathematics mixture, from the raw sets as they are downloaded.

    What is absent is listed, and so are counts that differ from the published ones.

    Example: slime data build-smr --root raw --out smr.jsonl
    """
    from rich.console import Console

    from slime_vlm.data.smr import build_smr as build
    from slime_vlm.data.smr import table
    from slime_vlm.errors import ConfigError

    folders = {}
    for item in folder or []:
        name, equals, path = item.partition("=")
        if not equals or not path:
            raise ConfigError(f"--folder {item}: expected SET=FOLDER, such as textbookqa=TQA")
        folders[name] = path
    with _progress() as progress:
        task = progress.add_task("", total=None)
        built = build(
            root,
            out,
            with_leak=with_mathvision_leak,
            folders=folders,
            only=only or [],
            advance=lambda name: progress.update(task, description=name),
        )
    console = Console(markup=False)  # names of files may look like it
    console.print(table(built))
    console.print(f"records: {out}, report: {out}.report.json", soft_wrap=True)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
