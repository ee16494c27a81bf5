"""Measure how much memory a step takes on top of what is allocated before it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass
class Growth:
    """Memory that a step took.

    Attributes:
        megabytes: Peak above what was allocated before. None if the system does not report it.
    """

    megabytes: float | None = None


@contextmanager
def measure_growth(device: torch.device) -> Iterator[Growth]:
    """Measure a `with` block: allocated memory on a GPU, resident memory of the process on Linux."""
    growth = Growth()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield growth
        growth.megabytes = (torch.cuda.max_memory_allocated(device) - before) / 1e6
        return
    _give_back()
    # Writing 5 resets the peak to the current resident memory.
    resettable = _write("5")
    held = _field("VmRSS") if resettable else None
    yield growth
    peak = _field("VmHWM")
    if held is not None and peak is not None:
        growth.megabytes = max(0.0, peak - held)


def _give_back() -> None:
    """Return freed memory to the system. Otherwise a step that reuses it would seem to need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _STATUS.exists() else None
    if trim is not None:
        trim(0)


def _write(text: str) -> bool:
    try:
        _RESET.write_text(text)
    except OSError:
        return False
    return True


def _field(name: str) -> float | None:
    """Return a field of the process's status in megabytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:")), None)
