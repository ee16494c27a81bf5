"""Import optional packages, with advice where one is not installed."""

from __future__ import annotations

import importlib
from typing import Any

from slime_vlm.errors import MediaError


def import_extra(module: str, name: str, need: str, extra: str) -> Any:
    """Import a package that an extra installs.

    Args:
        module: The module to import.
        name: The file or feature that needs it, for the message.
        need: The need in words, such as `a PDF needs pypdfium2`.
        extra: The extra that installs it.

    Returns:
        The module.

    Raises:
        MediaError: The package is not installed or cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise MediaError(install_advice(name, need, extra)) from None
    except ImportError as error:
        raise MediaError(f"{name}: {need}; {module} is installed, but cannot be loaded ({error})") from error


def install_advice(name: str, need: str, extra: str) -> str:
    """Return the error message that names the extra to install."""
    return f'{name}: {need}; install it with pip install "slime-vlm[{extra}]"'
