"""Packages that only some formats need: imported when they are, with advice where they are absent."""

from __future__ import annotations

import importlib
from typing import Any

from slime_vlm.errors import MediaError


def import_extra(module: str, name: str, what: str, extra: str) -> Any:
    """Imports a package that an extra brings.

    Args:
        module: the package.
        name: the file that needs it, for the message.
        what: what the file is.
        extra: the extra.

    Raises:
        MediaError: the package is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise MediaError(missing(name, what, extra)) from None
    except ImportError as error:
        raise MediaError(f"{name}: {what}; {module} is installed, but does not load ({error})") from error


def missing(name: str, what: str, extra: str) -> str:
    """The line that tells which extra a file needs."""
    return f'{name}: {what}; install with pip install "slime-vlm[{extra}]"'
