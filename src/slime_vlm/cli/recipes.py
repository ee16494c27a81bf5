"""`slime recipes`: list the recipes that ship with the package, and copy one to edit it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="List the recipes that ship with the package, and copy one to edit it.\n\nExample: `slime recipes list`",
)


@app.command("list")
def list_recipes() -> None:
    """List the shipped recipes: name, purpose and the command that runs it.

    Example: `slime recipes list`
    """
    from slime_vlm.recipes import shipped_recipes

    for recipe in shipped_recipes():
        typer.echo(f"{recipe.name}\n    {recipe.purpose}\n    {recipe.command}")


@app.command(no_args_is_help=True)
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name that `slime recipes list` shows.")],
    destination: Annotated[
        Path | None, typer.Argument(metavar="DEST", help="File or folder to copy to.", show_default="NAME.yaml, here")
    ] = None,
) -> None:
    """Copy a shipped recipe to a file that you can edit.

    Example: `slime recipes copy nano mine.yaml`
    """
    from slime_vlm.errors import ConfigError
    from slime_vlm.recipes import shipped_recipes

    found = {recipe.name: recipe for recipe in shipped_recipes()}
    if name not in found:
        raise ConfigError(f"no shipped recipe is named '{name}', expected one of {', '.join(found)}")
    source = found[name].path
    target = destination or Path(source.name)
    if target.is_dir():
        target /= source.name
    if target.exists():
        raise ConfigError(f"{target} exists, and would be overwritten; give another file as the second argument")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    typer.echo(f"Copied to {target}")
