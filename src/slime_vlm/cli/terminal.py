"""What commands write to the terminal: pieces of answers, and a spinner while something slow runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from slime_vlm.errors import printable
from slime_vlm.quiet import quiet_transformers

__all__ = ["busy", "collector_paused", "quiet_transformers", "shown", "write"]


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show a spinner on standard error while something slow runs, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    # A text has no markup: the name of a file may contain brackets.
    with Console(stderr=True).status(Text(f"{printable(what)} …")):
        yield


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector while a block imports torch and transformers.

    Imports make millions of objects that stay. Searching them for garbage, again and again and at the end, takes a
    quarter of the time of a short command. Later searches leave them out. A block should not load weights: what is
    garbage at its end is never freed.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def shown(text: str) -> str:
    """Return a text that others wrote, with control characters as escapes where standard output is a terminal."""
    return printable(text) if sys.stdout.isatty() else text


def write(piece: str) -> None:
    """Write a piece of an answer, without a line end."""
    typer.echo(shown(piece), nl=False)
