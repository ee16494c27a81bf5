"""Failures of opening an image: what they say, and that they say it in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.errors import MediaError
from slime_vlm.media import open_image


def failure(spec: str | Path, **options: Any) -> str:
    """Opens an image that cannot be opened, and gives the line that says why."""
    with pytest.raises(MediaError) as raised:
        open_image(spec, **options)
    line = str(raised.value)
    assert "\n" not in line
    return line


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Makes a package absent, as if it were not installed."""
    monkeypatch.setitem(sys.modules, module, None)
