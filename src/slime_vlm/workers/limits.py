"""Limits that a worker process sets for itself, and the form of its answers."""

from __future__ import annotations

import json
import os
import time
from typing import Any, BinaryIO

try:
    import resource
# Windows has no limits for processes.
except ModuleNotFoundError:
    resource = None  # type: ignore[assignment]


def limit(memory: int | None, seconds: int | None) -> None:
    """Set limits from here on: bytes beside those in use, and seconds of computing. None lifts a limit."""
    if resource is None:
        return
    for kind, amount in (
        (resource.RLIMIT_DATA, None if memory is None else data_bytes() + memory),
        (resource.RLIMIT_CPU, None if seconds is None else int(time.process_time()) + 1 + seconds),
        # No dump of memory when a decoder crashes.
        (resource.RLIMIT_CORE, 0),
    ):
        _soft, hard = resource.getrlimit(kind)
        wanted = resource.RLIM_INFINITY if amount is None else amount
        if hard != resource.RLIM_INFINITY:
            wanted = hard if amount is None else min(amount, hard)
        resource.setrlimit(kind, (wanted, hard))


def data_bytes() -> int:
    """Return the bytes that count against the limit on memory: the private writable memory of this process."""
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[5])
    # Only Linux has this file, and only there the limit holds.
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def send_line(answers: BinaryIO, answer: Any) -> None:
    """Write an answer: the length of its JSON in 4 bytes, and the JSON."""
    line = json.dumps(answer).encode()
    answers.write(len(line).to_bytes(4, "big") + line)
