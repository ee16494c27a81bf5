"""Options that several commands of `slime eval` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder of the run. Name the same folder again to resume an interrupted run."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the model's config, for example `selector_top_p=0.5`. Repeatable.",
    ),
]
