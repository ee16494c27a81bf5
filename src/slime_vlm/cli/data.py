"""`slime data`: check records before training, and build SMR from its raw data sets."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(
    no_args_is_help=True,
    help="Check training data, and build SMR from its raw data sets.\n\n"
    "Example: `slime data check mine.jsonl --images photos`",
)


@app.command(no_args_is_help=True)
def check(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="JSON, JSONL, Parquet or tar files, patterns such as `'shards/*.tar'`, folders, or hub ids.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Folder, zip or tar file that image paths are relative to.",
            show_default="beside the records",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Count tokens with this model's processor: `nano`, a folder or a hub id."),
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=1, help="Report records with more tokens than this.")
    ] = 2048,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Number of processes that open images.")] = 1,
    max_memory: Annotated[
        float | None,
        typer.Option(
            "--max-memory",
            min=1,
            help="Report images that take more memory than this while they are opened, in MB.",
            show_default="1500, as in training",
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the full report to this JSON file.")] = None,
    fix: Annotated[
        Path | None,
        typer.Option("--fix", metavar="OUT", help="Write a cleaned copy of the source to this new JSONL file."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="KIND", help="Do not count this kind of finding as an error. Repeatable."),
    ] = None,
    config: Annotated[str | None, typer.Option("--config", help="Configuration of a hub data set.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split of a hub data set.", show_default="train")] = None,
) -> None:
    """Check training records: decode every image and validate every conversation.

    Exit code 0 means that no record has an error, 1 that some have, 2 that the check itself failed.

    Example: `slime data check mine.jsonl --images photos --model nano --fix clean.jsonl`
    """
    from rich.console import Console

    from slime_vlm.cli.terminal import quiet_transformers, shown
    from slime_vlm.data import open_source
    from slime_vlm.data.check import KINDS, Report, check_source, check_target, write_repaired
    from slime_vlm.errors import ConfigError, nearest, printable
    from slime_vlm.media import MAX_MEMORY

    for kind in allow or []:
        if kind not in KINDS:
            raise ConfigError(f"--allow {kind}: there is no such kind of finding; {nearest(kind, KINDS)}")
    if fix is not None:
        if len(sources) > 1:
            raise ConfigError(f"--fix writes a copy of one source, {len(sources)} are given; take one at a time")
        check_target(fix)
    if json_file is not None and json_file.is_dir():
        raise ConfigError(f"--json {json_file} is a folder, expected a file; name a file in it")
    for path in filter(None, (fix, json_file)):
        # Fails before hours of checking, not after them.
        path.parent.mkdir(parents=True, exist_ok=True)
    if model is not None:
        quiet_transformers()
    most_memory = MAX_MEMORY if max_memory is None else int(max_memory * 1e6)
    opened = [open_source(source, images, config, split) for source in sources]
    reports = []
    with _progress() as progress:
        for source in opened:
            task = progress.add_task(f"checking {printable(Path(source.name).name)}", total=len(source))
            advance = partial(progress.advance, task)
            reports.append(check_source(source, model, max_length, workers, advance, most_memory))
    report = Report(reports, allow or [])
    console = Console(markup=False)  # file names may contain brackets
    for table in report.tables():
        console.print(table)
        console.print()
    if model is None:
        console.print("Without --model, tokens are not counted, and tiles follow the published rule.")
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        console.print(f"report: {shown(str(json_file))}", soft_wrap=True)
    if fix is not None:
        with _progress() as progress:
            task = progress.add_task(f"writing {fix.name}", total=len(opened[0]))
            advance = partial(progress.advance, task)
            counts = write_repaired(opened[0], reports[0], fix, model, max_length, allow or [], advance)
        left_out = ", ".join(f"{n:,} {kind}" for kind, n in counts.items() if kind in KINDS)
        kept = f"{counts['copied']:,} copied, {counts['repaired']:,} repaired, left out: {left_out or 'none'}"
        console.print(f"cleaned copy: {fix} ({kept})", soft_wrap=True)
        if fix.parent.resolve() != opened[0].images.resolve():
            console.print(
                f"its image paths are relative to {opened[0].images}: pass that folder with --images", soft_wrap=True
            )
    if not report.clean:
        raise typer.Exit(1)


@app.command("build-smr", no_args_is_help=True)
def build_smr(
    root: Annotated[Path, typer.Option("--root", help="Folder of the raw data sets. Image paths are relative to it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL file to write. The report goes to OUT.report.json.")],
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="SET", help="Use only this data set. Repeatable.")
    ] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option("--folder", metavar="SET=FOLDER", help="Folder of a data set, relative to the root. Repeatable."),
    ] = None,
    with_mathvision_leak: Annotated[
        bool,
        typer.Option(
            "--with-mathvision-leak",
            help="Include MATH-Vision, as the authors did. It has no training split: they train on its test split "
            "without test-mini, so only test-mini is a fair test of such a model.",
        ),
    ] = False,
) -> None:
    """Build SMR, the paper's science and mathematics mixture, from the raw data sets as downloaded.

    Lists missing data sets, and counts that differ from the published ones.

    Example: `slime data build-smr --root raw --out smr.jsonl`
    """
    from rich.console import Console

    from slime_vlm.data.smr import build_smr as build
    from slime_vlm.data.smr import table
    from slime_vlm.errors import ConfigError

    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder, expected a JSONL file; name a file in it")
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
    console = Console(markup=False)  # file names may contain brackets
    console.print(table(built))
    console.print(f"records: {out}, report: {out}.report.json", soft_wrap=True)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
