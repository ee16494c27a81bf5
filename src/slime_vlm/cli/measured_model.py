"""The model that `slime eval` measures: options that its commands share, and how `--set` is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[str, typer.Option("--model", "-m", help="nano, a checkpoint folder or a hub id.")]
RunFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; the same one again goes on with it.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, …", show_default="cuda if there is one")]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16, …", show_default="float32 on CPU, bfloat16 on GPU"),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="A field of the model's config, selector_top_p=0.5; repeatable.")
]


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """Config fields of `--set field=value`; values are JSON where they can be, else text.

    Raises:
        ConfigError: one of them has no `=`, or no name before it.
    """
    import json

    from slime_vlm.errors import ConfigError

    overrides: dict[str, Any] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set {text}: expected field=value, such as selector_top_p=0.5")
        try:
            overrides[name] = json.loads(value)
        except ValueError:
            overrides[name] = value
    return overrides
