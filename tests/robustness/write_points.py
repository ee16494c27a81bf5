"""What a kill may leave of a folder: its state before every write below it, and amid every file.

A killed process leaves what it had written. So a copy of the folder, made while the process waits before a write, is
what kill -9 would leave there. Files that compiled code writes announce nothing: they show by their size at the next
write. Each of them is also tried half-written, without the files that came after it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Where the audit events have the descriptor of the folder that a name is relative to, and the name.
_WRITES = {
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
}

Sizes = dict[Path, tuple[int, int]]
"""Size and time of change of every file."""


def at_writes(folder: Path, act: Callable[[], None]) -> None:
    """Call a function before every write of this process below a folder: a file opened for it, a new name, a removal.

    Args:
        folder: The folder. It may be missing.
        act: Called without arguments. It is not called for a folder that is to be made and is there already.
    """
    below = os.fspath(folder)

    def path_of(name: Any, descriptor: Any) -> str:
        if not isinstance(name, str | os.PathLike):
            return ""
        path = os.fspath(name)
        if isinstance(descriptor, int) and descriptor >= 0 and isinstance(path, str):
            path = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path)
        return path if isinstance(path, str) else ""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            name, mode, flags = arguments
            if any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & os.O_ACCMODE):
                paths = [path_of(name, None)]
            else:
                paths = []
        else:
            places = _WRITES.get(event, ())
            paths = [path_of(arguments[at], None if fd is None else arguments[fd]) for at, fd in places]
        if any(path.startswith(below) for path in paths) and not (event == "os.mkdir" and os.path.isdir(paths[0])):
            act()

    sys.addaudithook(hook)


def sizes(folder: Path) -> Sizes:
    """Return the size and the time of change of every file below a folder."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path.relative_to(folder): (state.st_size, state.st_mtime_ns) for path, state in found.items()}


def states(folder: Path, before: Sizes, now: Sizes) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """List what kills would leave between two writes, as functions that write it to a new folder.

    Args:
        folder: Folder of the process, which waits before a write.
        before: `sizes` at the write before.
        now: `sizes` now.
    """
    grown = {path: size for path, (size, _) in now.items() if size > before.get(path, (0, 0))[0]}
    order = sorted(grown, key=lambda path: now[path][1])

    def write(target: Path, half: Path | None, later: list[Path]) -> None:
        shutil.rmtree(target, ignore_errors=True)
        if folder.exists():
            shutil.copytree(folder, target)
        if half is not None:
            start = before.get(half, (0, 0))[0]
            os.truncate(target / half, start + (grown[half] - start) // 2)
        for path in later:
            if path in before:
                os.truncate(target / path, before[path][0])
            else:
                (target / path).unlink()

    for number, path in enumerate(order):
        yield f"amid {path}", lambda target, number=number, path=path: write(target, path, order[number + 1 :])
    yield "before a write", lambda target: write(target, None, [])
