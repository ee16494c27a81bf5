"""What commands share: a quiet transformers, and a sign of life while something slow runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from slime_vlm.quiet import quiet_transformers

__all__ = ["busy", "quiet_transformers"]


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Shows a spinner on standard error while something slow runs, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield
