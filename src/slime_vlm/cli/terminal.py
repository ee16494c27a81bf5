"""What commands write to the terminal: pieces of answers, and a spinner while something slow runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from slime_vlm.quiet import quiet_transformers

__all__ = ["busy", "quiet_transformers", "write"]


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show a spinner on standard error while something slow runs, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield


def write(piece: str) -> None:
    """Write a piece of an answer, without a line end."""
    typer.echo(piece, nl=False)
