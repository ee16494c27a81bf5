"""What commands write to the terminal: pieces of answers, and a spinner while something slow runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from slime_vlm.quiet import quiet_transformers

__all__ = ["busy", "collector_paused", "quiet_transformers", "write"]


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show a spinner on standard error while something slow runs, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
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


def write(piece: str) -> None:
    """Write a piece of an answer, without a line end."""
    typer.echo(piece, nl=False)
