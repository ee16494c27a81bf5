"""`slime doctor`: report versions, devices, and what is missing for which feature."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON list.")] = False,
) -> None:
    """Report versions, devices and optional packages, one line each.

    Each line starts with `ok`, `wrong` (it does not work as it is), `optional` (an extra that is not installed) or
    `note`.

    Example: `slime doctor`
    """
    from slime_vlm.cli.terminal import busy

    with busy("checking"):
        from slime_vlm.diagnostics.doctor import as_dicts, examine

        found = examine()
    if as_json:
        typer.echo(json.dumps(as_dicts(found)))
        return
    width = max(len(finding.topic) for finding in found)
    colours = {
        "ok": typer.colors.GREEN,
        "wrong": typer.colors.RED,
        "optional": typer.colors.CYAN,
        "note": typer.colors.YELLOW,
    }
    for finding in found:
        state = typer.style(f"{finding.state:<8}", fg=colours[finding.state])
        typer.echo(f"{state}  {finding.topic:<{width}}  {finding.text}")
    wrong, optional = (sum(finding.state == state for finding in found) for state in ("wrong", "optional"))
    typer.echo(
        f"{wrong or 'nothing'} wrong; {optional or 'no'} optional extra(s) not installed, each only for its feature"
    )
