"""Keep the notices and progress bars of other packages off the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def quiet_bitsandbytes() -> None:
    """Switch off a notice that bitsandbytes prints while it is imported.

    transformers imports peft, which imports bitsandbytes, wherever both are installed. On a CPU with AVX512-BF16 that
    import warns ("Failed to load CPU gemm_4bit_forward ...") unless the package `kernels` is there, also when nothing
    is quantised. 4 bits work without that kernel.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quiet_transformers() -> Callable[[], None]:
    """Switch off the notices and progress bars of transformers.

    Returns:
        A function that restores the earlier settings.
    """
    from transformers.utils import logging as notices

    level, bars = notices.get_verbosity(), notices.is_progress_bar_enabled()
    notices.set_verbosity_error()
    notices.disable_progress_bar()

    def restore() -> None:
        notices.set_verbosity(level)
        if bars:
            notices.enable_progress_bar()

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
