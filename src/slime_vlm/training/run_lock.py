"""One run at a time in the folder of a stage: a lock that the system gives back when its process dies.

The lock file names the host and the process that hold it. Only the lock of the system decides, so a process that reuses
the number of a dead one is not taken for it. Between machines that depends on the file system: NFS passes locks on,
others may keep them to one machine.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from slime_vlm.errors import ConfigError

try:
    import fcntl
except ImportError:
    # Windows has none.
    fcntl = None  # type: ignore[assignment]

_HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def locked(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: Lock file. It is left empty when the lock is given back, and names its holder if that was killed.
        report: Called with a line if the holder before was killed, or if nothing can be locked here.

    Raises:
        ConfigError: A process that lives holds the lock.
    """
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        holder = _holder(file.read())
        if not _locks(file, report):
            yield
            return
        if holder is not None:
            report(f"{holder} ended without giving {path.name} back, its lock is taken over")
        _write(file, json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
        try:
            yield
        finally:
            _write(file, "")


def _locks(file: IO[str], report: Callable[[str], None]) -> bool:
    """Lock a file until it is closed. A child that inherits the file does not inherit this kind of lock."""
    reason = "this system has no fcntl"
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            reason = str(error.strerror)
            if error.errno in _HELD:
                file.seek(0)
                raise ConfigError(
                    f"another run is at work on {file.name.removesuffix('.lock')}: "
                    f"{_holder(file.read()) or 'a process'} holds {file.name}; wait for its end, stop it, or use "
                    "another --out"
                ) from None
    report(f"{file.name} cannot be locked ({reason}): make sure that no other run uses this folder")
    return False


def _holder(text: str) -> str | None:
    """Return the words for the process that a lock file names; None for an empty or damaged file."""
    try:
        found = json.loads(text)
        return f"process {found['process']} on {found['host']}"
    except (ValueError, LookupError, TypeError):
        return None


def _write(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
