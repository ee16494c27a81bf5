"""Checkpoints that can be trusted: sizes and hashes of their files, written when all of them are on the disk.

The file `complete` of a checkpoint is its manifest. It is written last, so a checkpoint without it was being written
when its run was killed. A checkpoint that differs from its manifest is renamed, never deleted.

A file of 1 GiB takes 1.0 s to write its manifest, and 1.1 s to check (0.7 s of CPU time; SHA-256 instructions of an AMD
EPYC, file in memory, other programs running). blake2b takes 1.2 s of CPU time. Several files are hashed side by side.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MANIFEST = "complete"
"""Manifest of a checkpoint folder. Earlier versions wrote an empty file of this name."""

KEPT = 2
"""Number of checkpoints that a stage keeps."""

Files = Mapping[str, Mapping[str, Any]]

# What every checkpoint has, to recognise one of an earlier version that lost a file: one name of each line.
_NEEDED = (
    ("trainer_state.json",),
    ("scheduler.pt",),
    ("rng_state.pth", "rng_state_0.pth"),
    ("optimizer.pt", "optimizer_0", "global_step*"),
)


def write_at_once(path: Path, text: str) -> None:
    """Write a file atomically, and wait until it is on the disk."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(path.parent)


def sync(folder: Path) -> None:
    """Wait until all files of a folder, and their names, are on the disk."""
    for found in _files_of(folder):
        # Copied files may be read-only. Only Windows asks for more.
        with found.open("rb+" if os.name == "nt" else "rb") as file:
            os.fsync(file.fileno())
    for path in [*(path for path in folder.rglob("*") if path.is_dir()), folder, folder.parent]:
        _sync_folder(path)


def describe_files(folder: Path, without: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Return the size and the SHA-256 of every file of a folder by its name, as JSON types.

    Args:
        folder: The folder.
        without: Names of files to leave out.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in _files_of(folder)}
    names = sorted(paths.keys() - set(without))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        hashes = threads.map(_hash, [paths[name] for name in names])
        return {
            name: {"size": paths[name].stat().st_size, "sha256": found}
            for name, found in zip(names, hashes, strict=True)
        }


def damage_of_files(folder: Path, files: Files) -> str | None:
    """Compare the files of a folder with their description. Other files may have joined them.

    Returns:
        The first difference; None if there is none.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{name} has {path.stat().st_size} bytes, expected {expected['size']}"

    def changed(name: str) -> str | None:
        try:
            same = _hash(folder / name) == files[name]["sha256"]
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        return None if same else f"the content of {name} changed"

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return next((found for found in threads.map(changed, files) if found is not None), None)


def write_manifest(checkpoint: Path) -> None:
    """Mark a checkpoint as complete. Every process has to have called `sync` for it."""
    files = describe_files(checkpoint, without=(MANIFEST,))
    write_at_once(checkpoint / MANIFEST, json.dumps({"files": files}, indent=1))


def damage_of(checkpoint: Path) -> str | None:
    """Compare a checkpoint with its manifest.

    A checkpoint of an earlier version has no manifest, so only the presence of its files is checked.

    Returns:
        The first difference; None if there is none.
    """
    try:
        text = (checkpoint / MANIFEST).read_text(encoding="utf-8")
        if text:
            files = json.loads(text)["files"]
            return damage_of_files(checkpoint, files) if files else f"{MANIFEST} names no file"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    for names in _NEEDED:
        if not any(any(checkpoint.glob(name)) for name in names):
            return f"{names[0]} is missing"
    return None


def complete_checkpoints(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a stage that were written to their end, by step. Their files are not checked."""
    return {step: path for step, path in _checkpoints(folder).items() if (path / MANIFEST).exists()}


def _checkpoints(folder: Path) -> dict[int, Path]:
    named = {path.name.removeprefix("checkpoint-"): path for path in folder.glob("checkpoint-*")}
    return dict(sorted((int(step), path) for step, path in named.items() if step.isdecimal()))


def newest_checkpoint(folder: Path, report: Callable[[str], None]) -> Path | None:
    """Return the newest checkpoint of a stage whose files are as they were written. One process may call this.

    Checkpoints that were not written to their end are removed. Damaged ones are set aside.

    Args:
        folder: Folder of the stage.
        report: Called with a line for every checkpoint that is removed, set aside or not checked.
    """
    complete = complete_checkpoints(folder)
    for step, path in _checkpoints(folder).items():
        if step not in complete:
            report(f"{path.name} was not written to its end, removed")
            shutil.rmtree(path, ignore_errors=True)
    paths = list(complete.values())
    while paths:
        path = paths.pop()
        damage = damage_of(path)
        if damage is None and not _has_hashes(path) and any(map(_has_hashes, paths)):
            # No version wrote one without hashes after one with them.
            damage = f"{MANIFEST} is empty"
        if damage is None:
            if not _has_hashes(path):
                report(f"{path.name} is of an earlier version and has no hashes, its content is not checked")
            return path
        report(f"{path.name} is damaged ({damage}), set aside as {set_aside(path).name}")
    return None


def _has_hashes(checkpoint: Path) -> bool:
    return (checkpoint / MANIFEST).stat().st_size > 0


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, and return its new path."""
    number, new = 1, path.with_name(f"damaged-{path.name}")
    while new.exists():
        number += 1
        new = path.with_name(f"damaged-{path.name}-{number}")
    return path.rename(new)


def remove_old_checkpoints(folder: Path) -> None:
    """Keep the newest checkpoints of a stage by step. Times of files depend on clocks, which may be set back."""
    for path in list(complete_checkpoints(folder).values())[:-KEPT]:
        # First the mark: if the run is killed now, what is left is not taken for a checkpoint.
        (path / MANIFEST).unlink()
        shutil.rmtree(path, ignore_errors=True)


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        # Windows cannot open a folder; its file system keeps the order of names by itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems of networks and clouds cannot do this for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)
