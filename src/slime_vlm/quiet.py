"""Keeping transformers' own notices and bars (reading weights, writing shards) off the terminal."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def quiet_transformers() -> Callable[[], None]:
    """Switches off notices and progress bars of transformers.

    Returns:
        What switches them on again, as they were.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    def restore() -> None:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

    return restore


@contextmanager
def quiet_while() -> Iterator[None]:
    """Keeps transformers quiet for a while, deprecation warnings included."""
    restore = quiet_transformers()
    try:
        with warnings.catch_warnings():
            # Names that change with version 6 of transformers; the old ones work in all of 5.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        restore()
