"""Helpers for failures: the one-line message of an image that cannot be opened, and packages made absent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.errors import MediaError
from slime_vlm.media import open_image


def failure(spec: str | Path, **options: Any) -> str:
    """Open an image that cannot be opened, and return the error message."""
    with pytest.raises(MediaError) as raised:
        open_image(spec, **options)
    line = str(raised.value)
    assert "\n" not in line
    return line


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make a package absent, as if it were not installed."""
    monkeypatch.setitem(sys.modules, module, None)
