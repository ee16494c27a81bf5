"""`slime info`: parameters, tokens, memory and FLOPs of a model, without loading its weights."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slime_vlm.cli.model_options import MaxLocalTokens, MaxTiles, config_changes
from slime_vlm.cli.terminal import busy, quiet_transformers

if TYPE_CHECKING:
    from rich.table import Table

    from slime_vlm.diagnostics.cost import ModelInfo

_STEPS = {"seeing": "encoding the image", "reading": "prefill"}


def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model: `nano`, a folder with a config.json, or a hub id.")
    ],
    image_size: Annotated[
        str, typer.Option("--image-size", metavar="HxW", help="Height and width of the image, in pixels.")
    ] = "1080x1920",
    max_tiles: MaxTiles = None,
    max_local_tokens: MaxLocalTokens = None,
    text_tokens: Annotated[
        int, typer.Option("--text-tokens", min=1, help="Number of text tokens of prompt and question.")
    ] = 64,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option("--dtype", help="Number type of the cache and the activations."),
    ] = "bfloat16",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show parameters, tokens, memory and FLOPs for one question about an image.

    Only the config is read, not the weights.

    Example: `slime info nano --image-size 3000x4000`
    """
    size = _size(image_size)
    with busy(f"reading the config of {model}"):
        import torch

        from slime_vlm.diagnostics.cost import describe, read_config

        quiet_transformers()
        config = read_config(model, **config_changes(max_local_tokens, max_tiles))
        found = describe(config, size, text_tokens=text_tokens, dtype=getattr(torch, dtype))
    if as_json:
        typer.echo(json.dumps({"model": model, **found.as_dict()}))
        return
    from rich.console import Console

    console = Console()
    for table in _tables(found):
        console.print(table)
        console.print()


def _size(text: str) -> tuple[int, int]:
    from slime_vlm.errors import InputError

    match = re.fullmatch(r"\s*(\d+)\s*[x×X]\s*(\d+)\s*", text)
    if match is None or not all(int(side) for side in match.groups()):
        raise InputError(f"--image-size {text}: expected height x width in pixels, as in 1080x1920")
    return int(match.group(1)), int(match.group(2))


def _tables(found: ModelInfo) -> list[Table]:
    from rich import box
    from rich.table import Table

    def table(title: str, rows: list[tuple[str, str]]) -> Table:
        made = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=box.SIMPLE_HEAD)
        made.add_column(min_width=34)
        made.add_column(justify="right", min_width=14)
        for row in rows:
            made.add_row(*row)
        return made

    tokens, grid = found.tokens, found.grid
    height, width = found.image_size
    limit = f" of {found.limit:,}" if found.limit else ""
    memory = [(f"weights in {name}", _amount(size, 1024, "B")) for name, size in found.weight_bytes.items()]
    memory += [(f"cache of the longest sequence, {found.dtype}", _amount(found.cache_bytes, 1024, "B"))]
    memory += [
        (f"activations, {_STEPS[step]}, {found.dtype}", _amount(size, 1024, "B"))
        for step, size in found.activation_bytes.items()
    ]
    return [
        table(
            "Parameters",
            [(name, f"{count:,}") for name, count in found.parameters.items()]
            + [("total", f"{sum(found.parameters.values()):,}")],
        ),
        table(
            f"Tokens for an image of {height} x {width}",
            [
                ("tiles", f"{grid.rows} x {grid.cols} of {grid.tile_size} px"),
                ("global tokens", f"{tokens['global']:,}"),
                ("local tokens", f"{tokens['local']:,}"),
                ("local tokens kept", _range(tokens["kept_least"], tokens["kept_most"])),
                (f"sequence, with {found.text_tokens} of text", _range(*found.sequence) + limit),
            ],
        ),
        table("Memory (weights in 16 and 32 bits are exact, the rest is an estimate)", memory),
        table(
            "Operations (multiplications and additions)",
            [(name, _amount(count, 1000, "FLOP")) for name, count in found.flops.items()],
        ),
    ]


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _amount(value: float, step: int, unit: str) -> str:
    prefixes = ("", "Ki", "Mi", "Gi", "Ti") if step == 1024 else ("", "k", "M", "G", "T", "P")
    power = 0
    while value >= step and power < len(prefixes) - 1:
        value /= step
        power += 1
    return f"{value:.0f} {unit}" if power == 0 else f"{value:,.1f} {prefixes[power]}{unit}"
