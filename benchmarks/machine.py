"""Describe the machine and the process that a benchmark runs on, and start processes of their own for its parts."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import platform
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

_QUIET = 0.5
"""Load of a machine that does nothing else."""


def peak_memory() -> float:
    """Return the peak memory of this process in megabytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # On Linux, getrusage starts from the memory that the parent held when it started this process.
        lines = status.read_text().splitlines()
        peak = next((line for line in lines if line.startswith("VmHWM:")), None)
        if peak is not None:
            return int(peak.split()[1]) * 1024 / 1e6
    # Linux reports KiB, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def forget_peak() -> None:
    """Let `peak_memory` start again from what this process holds now. Elsewhere than on Linux it goes on."""
    references = Path("/proc/self/clear_refs")
    if references.exists():
        # Resets the mark that `peak_memory` reads.
        references.write_text("5")


def machine() -> str:
    """Return date, processor, cores and load in one line."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    cores = f"{os.cpu_count()} cores{load}"
    return f"{datetime.date.today()}, {named or platform.processor() or platform.machine()}, {cores}"


def load_warning(own: int = 0) -> str | None:
    """Return a sentence if the machine does other work, so that clock times say little. None if it is quiet.

    Args:
        own: Number of busy processes that are the caller's own.
    """
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0] - own
    if load < _QUIET:
        return None
    return f"the machine is not quiet (a load of {load:.1f} beside this); compare CPU time, and trust no clock time"


def own_process() -> ProcessPoolExecutor:
    """Start a process of its own for calls of a module's functions. It keeps what they cache, until it is shut down.

    The process is forked from one that has imported torch and transformers, once for all, and holds nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "slime_vlm.inference.answering"])
    return ProcessPoolExecutor(1, mp_context=context)


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in an `own_process`, whose peak memory is that of the call."""
    with own_process() as process:
        return process.submit(function, *arguments).result()
