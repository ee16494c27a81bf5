"""Helpers for failures: the one-line message of an image that cannot be opened, and packages made absent."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media import open_image, worker_pool
from slime_vlm.media.decoding import read_image
from slime_vlm.media.opening import check_spec
from slime_vlm.media.request import Request


def failure(spec: str | Path, **options: Any) -> str:
    """Open an image that cannot be opened, and return the error message."""
    with pytest.raises(MediaError) as raised:
        open_image(spec, **options)
    line = str(raised.value)
    assert "\n" not in line
    return line


def opened_here(spec: str | Path, **options: Any) -> Image.Image:
    """Open an image in this process even if its format is decoded in the worker, which knows no monkeypatch."""
    file, page = check_spec(spec)
    return read_image(Request(Path(file), file, page, **options))


def failure_here(spec: str | Path, **options: Any) -> str:
    """Return the error message of an image that cannot be opened in this process."""
    with pytest.raises(MediaError) as raised:
        opened_here(spec, **options)
    line = str(raised.value)
    assert "\n" not in line
    return line


@contextmanager
def absent_in_worker(module: str) -> Iterator[None]:
    """Make a package absent in the workers that are started while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{module}.py").write_text(f"raise ModuleNotFoundError('no', name={module!r})\n")
        worker_pool.end_all()
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)
            worker_pool.end_all()


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make a package absent, as if it were not installed."""
    monkeypatch.setitem(sys.modules, module, None)
