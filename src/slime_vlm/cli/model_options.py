"""Options that choose a model and how it runs, shared by the commands that load one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_PANEL = "Model"

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Model to load: `pages` (printed documents) or `nano` (rendered pages), which ship with the package, a "
        "checkpoint folder or a hub id, in the native or the published layout.",
        rich_help_panel=_PANEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Device to run on: `cpu`, `cuda`, `cuda:1`, …",
        show_default="cuda if there is one",
        rich_help_panel=_PANEL,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Number type of the weights: `float32`, `bfloat16` or `float16`.",
        show_default="float32 on CPU, bfloat16 on GPU",
        rich_help_panel=_PANEL,
    ),
]
Quantization = Annotated[
    str | None,
    typer.Option(
        "--quantization",
        help="Quantize the language model's weights: `int8`, `4bit` or `torchao-int8`.",
        show_default="off",
        rich_help_panel=_PANEL,
    ),
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help="Answer sooner on a CPU, with rounded numbers: bfloat16 where the CPU has instructions for it, else int8.",
        rich_help_panel=_PANEL,
    ),
]
MaxTiles = Annotated[
    int | None,
    typer.Option(
        "--max-tiles",
        min=1,
        max=10_000,
        help="Maximum number of tiles per image.",
        show_default="the model's own",
        rich_help_panel=_PANEL,
    ),
]
MaxLocalTokens = Annotated[
    int | None,
    typer.Option(
        "--max-local-tokens",
        min=1,
        help="Keep exactly this many local tokens per image, those with the highest selector scores.",
        show_default="the model's own rule",
        rich_help_panel=_PANEL,
    ),
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Maximum length of an answer, in tokens.", rich_help_panel=_PANEL)
]


def config_changes(max_local_tokens: int | None, max_tiles: int | None) -> dict[str, Any]:
    """Return the fields of a model's config that these options change."""
    changes = {"max_local_tokens": max_local_tokens, "max_tiles": max_tiles}
    return {name: value for name, value in changes.items() if value is not None}
