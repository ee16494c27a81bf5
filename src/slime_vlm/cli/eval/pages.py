"""`slime eval pages` and `reading`: exact match on held-out rendered pages, and the vision encoder by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from slime_vlm.cli.model_options import Fast, Model
from slime_vlm.cli.terminal import quiet_transformers

MODES: dict[str, dict[str, Any]] = {
    "slime": {},
    "all-local": {"selector": "none", "max_local_tokens": None},
    "global": {"views": "global"},
    "blind": {},
}
COLUMNS = ("key-value", "table", "scene", "chart", "geometry", "absent", "all")

Split = Annotated[
    str,
    typer.Option(
        "--split",
        help="Split of the pages: `heldout` (other values and layouts than in training), `heldout_fonts` "
        "(other fonts as well) or `train`.",
    ),
]


def pages(
    model: Model = "nano",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of pages per row of the table.")] = 60,
    tiles: Annotated[
        list[int] | None,
        typer.Option(
            "--tiles",
            min=1,
            help="Number of tiles per page. Repeat the option to print one table for each number.",
            show_default="1, 2 and 6",
        ),
    ] = None,
    split: Split = "heldout",
    mode: Annotated[
        list[str] | None,
        typer.Option(
            "--mode",
            help=f"Row of the table: {', '.join(f'`{name}`' for name in MODES)}. `slime` is the model as it is, "
            "`blind` shows it empty pages. Repeatable.",
            show_default="all",
        ),
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(
            "--budget",
            min=1,
            max=100,
            help="Add a row in which the model keeps this percentage of the local tokens. Repeatable.",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Ask only about this kind of page, for example `form`. Repeatable."),
    ] = None,
    scale: Annotated[
        float,
        typer.Option(
            "--scale", help="Scale of the pages. With 2, a page has twice as many pixels per side for the same tiles."
        ),
    ] = 1.0,
    fast: Fast = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write every prediction to this JSONL file.")] = None,
) -> None:
    """Print a table of one model's exact match on rendered pages, by kind of page, with tokens and seconds.

    For intervals, plots, resuming or your own images, use `slime eval ablation`.

    Pages are measured in tiles of 256 pixels. With `--tiles 1`, a page of up to 256 x 256 is one tile
    (`max_tiles` 1): the default slicing rule has no such grid.

    Example: `slime eval pages --model nano --tiles 6 --count 100`
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
        typer.echo(f"\n{number} tile{'s' * (number > 1)}, split {split}, {count} pages per row, model {model}\n")
        typer.echo(f"| mode | {' | '.join(COLUMNS)} | global | local | kept | s/question |")
        typer.echo("|" + " --- |" * (len(COLUMNS) + 5))
        for name, overrides, share in rows:
            extra: dict[str, Any] = {"max_tiles": 1} if number == 1 else {}
            loaded, processor = slime_vlm.load(model, fast=fast, packed=True, **overrides, **extra)
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


def reading(
    model: Model = "nano",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of pages.")] = 20,
    split: Split = "heldout",
) -> None:
    """Measure how well the vision encoder reads rendered pages, without the language model.

    Prints the share of local tokens with text whose characters, offset and words are recognised. The model must
    have a vocabulary of rendered pages, as nano has.

    Example: `slime eval reading --model nano --count 20`
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
