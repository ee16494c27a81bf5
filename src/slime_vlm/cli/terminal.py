"""What commands share: a quiet transformers, and a sign of life while something slow runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_transformers() -> None:
    """Keeps warnings and progress bars of transformers off the terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Shows a spinner on standard error while something slow runs, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield
