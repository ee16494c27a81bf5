"""Keep the notices and progress bars of transformers off the terminal."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def quiet_transformers() -> Callable[[], None]:
    """Switch off the notices and progress bars of transformers.

    Returns:
        A function that restores the earlier settings.
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
    """Keep transformers quiet inside a `with` block, deprecation warnings included."""
    restore = quiet_transformers()
    try:
        with warnings.catch_warnings():
            # These names change with transformers 6. The old ones work in every version 5.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        restore()
