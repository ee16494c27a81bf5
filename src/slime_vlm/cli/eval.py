"""`slime eval`: the paper's benchmarks, and exact match on held-out rendered pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from slime_vlm.cli import benchmarks
from slime_vlm.cli.measured_model import Model
from slime_vlm.cli.suite import suite
from slime_vlm.cli.terminal import quiet_transformers

app = typer.Typer(no_args_is_help=True, help="Measure a model.")
app.command(no_args_is_help=True)(benchmarks.run)
app.command(no_args_is_help=True)(benchmarks.score)
app.command()(benchmarks.tasks)
app.command(no_args_is_help=True)(suite)

MODES: dict[str, dict[str, Any]] = {
    "slime": {},
    "all-local": {"selector": "none", "max_local_tokens": None},
    "global": {"views": "global"},
    "blind": {},
}
# What each short form takes beside itself.
_TAKES = {
    "score_only": {"out"},
    "suite_name": {"out", "model", "limit"},
    "tasks": {"out", "model", "data", "limit", "batch_size"},
}
COLUMNS = ("key-value", "table", "scene", "chart", "geometry", "absent", "all")


@app.callback(invoke_without_command=True)
def _group(
    context: typer.Context,
    model: Model = "nano",
    tasks: Annotated[str, typer.Option("--tasks", help="Short for `run`: names, such as textvqa,pope.")] = "",
    suite_name: Annotated[str, typer.Option("--suite", help="Short for `suite`: pages.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run.")] = None,
    data: benchmarks.Data = None,
    limit: benchmarks.Limit = None,
    batch_size: benchmarks.BatchSize = "auto",
    score_only: Annotated[
        list[Path] | None, typer.Option("--score-only", help="Short for `score`: predictions to score again.")
    ] = None,
) -> None:
    """Measure a model; without a command, --tasks or --suite runs, and --score-only scores predictions again."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if context.invoked_subcommand is not None:
        if given:
            raise typer.BadParameter(f"{_option(given[0])} belongs behind {context.invoked_subcommand}")
        return
    shorts = [name for name in _TAKES if name in given]
    for name in given:
        if shorts and name != shorts[0] and name not in _TAKES[shorts[0]]:
            raise typer.BadParameter(f"{_option(name)} means nothing beside {_option(shorts[0])}, leave one out")
    if score_only:
        benchmarks.score(score_only, out)
    elif not tasks and not suite_name:
        raise typer.BadParameter("expected --tasks, --suite, --score-only or a command")
    elif out is None:
        raise typer.BadParameter(f"--{'suite' if suite_name else 'tasks'} needs --out, the folder of the run")
    elif suite_name:
        suite(suite_name, out, model, limit)
    else:
        benchmarks.run(tasks, out, model, data, limit, batch_size)


def _option(parameter: str) -> str:
    return "--" + parameter.removesuffix("_name").replace("_", "-")


@app.command()
def pages(
    model: Model = "nano",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Pages of every row of the table.")] = 60,
    tiles: Annotated[
        list[int] | None,
        typer.Option("--tiles", min=1, help="Tiles of a page; several make several tables.", show_default="1, 2 and 6"),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="heldout, heldout_fonts or train.")] = "heldout",
    mode: Annotated[
        list[str] | None,
        typer.Option("--mode", help=f"One of {', '.join(MODES)}; may be given several times.", show_default="all"),
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option("--budget", min=1, max=100, help="Adds a row that keeps this percentage of the local tokens."),
    ] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only these kinds of page.")] = None,
    scale: Annotated[float, typer.Option("--scale", help="Page pixels for one pixel of the tile grid.")] = 1.0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write every prediction to this JSONL file.")] = None,
) -> None:
    """A quick look at one model: exact match by kind of rendered page, with tokens and seconds, as a Markdown table.

    To compare settings with intervals and plots, to resume, or to ask about your own images, take
    `slime eval suite pages`.

    Pages are measured in tiles of 256 pixels. One tile means pages of up to 256 x 256 seen as one tile (max_tiles 1);
    the default slicing rule has no such grid.

    Example: slime eval pages --model nano --tiles 6 --count 100
    """
    from rich.progress import track

    import slime_vlm
    from slime_vlm.errors import ConfigError
    from slime_vlm.evaluation.pages.exact_match import answer_pages, summarise
    from slime_vlm.pages import PageSettings

    quiet_transformers()
    for name in mode or []:
        if name not in MODES:
            raise ConfigError(f"--mode {name}: expected one of {', '.join(MODES)}")
    rows: list[tuple[str, dict[str, Any], float | None]] = [(name, MODES[name], None) for name in mode or MODES]
    rows += [(f"best {percent}%", {}, percent / 100) for percent in budget or []]
    written = out.open("w", encoding="utf-8") if out else None
    for number in tiles or [1, 2, 6]:
        typer.echo(f"\n{number} tile{'s' * (number > 1)}, split {split}, {count} pages a row, model {model}\n")
        typer.echo(f"| mode | {' | '.join(COLUMNS)} | global | local | kept | s a question |")
        typer.echo("|" + " --- |" * (len(COLUMNS) + 5))
        for name, overrides, share in rows:
            extra: dict[str, Any] = {"max_tiles": 1} if number == 1 else {}
            loaded, processor = slime_vlm.load(model, None, None, **overrides, **extra)
            chosen: dict[str, Any] = {"kinds": dict.fromkeys(kind, 1.0)} if kind else {}
            settings = PageSettings(
                tiles=(number, number),
                text_px=(22, 34),
                page_scale=(0.8 * scale, 1.3 * scale),
                view_size=256,
                max_tiles=max(7, number + 1) if number > 1 else 1,
                split=split,
                questions=4,
                **chosen,
            )
            stream = answer_pages(loaded, processor, settings, count, blind=name == "blind", keep_share=share)
            answers = list(track(stream, description=name, total=count * 4, transient=True))
            result = summarise(answers)
            cells = [
                f"{result[c]['exact_match']:.2f} ({result[c]['questions']:.0f})" if c in result else "" for c in COLUMNS
            ]
            costs = [f"{result['all'][c]:.0f}" for c in ("global_tokens", "local_tokens", "kept_tokens")]
            typer.echo(f"| {name} | {' | '.join([*cells, *costs])} | {result['all']['seconds']:.3f} |")
            if written:
                for answer in answers:
                    line = {"mode": name, "tiles": number, "split": split, **answer.as_dict()}
                    written.write(json.dumps(line, ensure_ascii=False) + "\n")
    if written:
        written.close()
        typer.echo(f"\npredictions: {out}")


@app.command()
def reading(
    model: Annotated[str, typer.Option("--model", help="nano, or another model that reads pages.")] = "nano",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many pages.")] = 20,
    split: Annotated[str, typer.Option("--split", help="heldout, heldout_fonts or train.")] = "heldout",
) -> None:
    """How well the eye alone reads: the share of tokens with text whose characters, offset and words are named right.

    Example: slime eval reading --model nano -n 20
    """
    import slime_vlm
    from slime_vlm.evaluation.pages.encoder_reading import read_pages
    from slime_vlm.evaluation.pages.exact_match import FIRST_SEED
    from slime_vlm.pages import PageSettings

    quiet_transformers()
    loaded, processor = slime_vlm.load(model)
    settings = PageSettings(tiles=(2, 7), text_px=(22, 34), page_scale=(0.8, 1.3), view_size=256, split=split)
    for name, share in read_pages(loaded, processor, settings, count, FIRST_SEED).items():
        typer.echo(f"{name} {share:.3f}")
