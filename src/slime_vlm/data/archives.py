"""Members of zip and tar files, read in place: half a million small files need not be unpacked."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from slime_vlm.errors import DataError

ARCHIVES = (".zip", ".tar")
"""Endings of archives. Compressed tars have no place to jump to, so they are not among them."""

# All that a damaged zip file or member of one may raise; each way to compress has an error of its own.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class Place:
    """Where a member of a tar file lies, in bytes."""

    start: int
    size: int


def tar_places(path: Path) -> dict[str, Place]:
    """Find every file in a tar; only the headers are read.

    Raises:
        DataError: It is no tar, a compressed one, or broken off.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            return {
                member.name.removeprefix("./"): Place(member.offset_data, member.size)
                for member in tar
                if member.isfile()
            }
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a tar file ({error}); it has to be whole and not compressed"
        ) from error


def read_place(path: Path, place: Place) -> bytes:
    """Read a member of a tar.

    Raises:
        DataError: The file ends before the member does.
    """
    with path.open("rb") as file:
        file.seek(place.start)
        content = file.read(place.size)
    if len(content) < place.size:
        raise DataError(f"{path} is broken off; fetch it again")
    return content


def read_member(archive: Path, name: str) -> bytes | None:
    """Read a member of a zip or tar file; None where it has no such member.

    Raises:
        DataError: The archive or the member is damaged.
    """
    if archive.suffix == ".tar":
        place = _tar(archive).get(name)
        return None if place is None else read_place(archive, place)
    try:
        return _zip(archive, os.getpid()).read(name)
    except KeyError:
        return None
    except _ZIP_ERRORS as error:
        raise DataError(f"{archive}: '{name}' cannot be read ({error}); fetch the archive again") from error


# Of every tar for good: shards are read in any order, and finding the files of one takes long.
@cache
def _tar(path: Path) -> dict[str, Place]:
    return tar_places(path)


# Processes that share an open file share its position, too; hence one for each.
@lru_cache(maxsize=16)
def _zip(path: Path, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
