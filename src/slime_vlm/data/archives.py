"""Read members of zip and tar files in place, so that half a million small files need not be unpacked."""

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
"""Endings of archives. Compressed tar files are not among them, because they cannot be read from the middle."""

MAX_MEMBER = 256_000_000
"""Largest member that is read, in bytes once it is unpacked. A few megabytes may unpack to many gigabytes."""

# Everything that a damaged zip file or member may raise. Each compression method has its own error.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    # Names that are not the UTF-8 that they claim to be, and tables that start before the file.
    ValueError,
)


@dataclass(frozen=True)
class ByteRange:
    """The position of a member in a tar file.

    Attributes:
        start: Offset of its first byte.
        size: Number of bytes.
    """

    start: int
    size: int


def tar_members(path: Path) -> dict[str, ByteRange]:
    """Find every file in a tar file. Only the headers are read.

    Raises:
        DataError: The file is not a tar file, is compressed or truncated, or holds files with holes.
    """
    found = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.issparse():
                    raise DataError(f"{path}: '{member.name}' is stored with holes; make the tar file without --sparse")
                if member.isfile():
                    found[member.name.removeprefix("./")] = ByteRange(member.offset_data, member.size)
        return found
    # ValueError: damaged numbers in extended headers.
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as a tar file ({error}); expected a complete, uncompressed one"
        ) from error


def read_range(path: Path, member: ByteRange) -> bytes:
    """Read a member of a tar file.

    Raises:
        DataError: The member is larger than `MAX_MEMBER`, or the file ends before it does.
    """
    if member.size > MAX_MEMBER:
        raise DataError(f"{path}: a member has {member.size:,} bytes, expected at most {MAX_MEMBER:,}")
    with path.open("rb") as file:
        file.seek(member.start)
        content = file.read(member.size)
    if len(content) < member.size:
        raise DataError(f"{path} is truncated; download it again")
    return content


def read_member(archive: Path, name: str) -> bytes | None:
    """Read a member of a zip or tar file.

    Args:
        archive: The archive. Its ending decides how it is read.
        name: The name of the member.

    Returns:
        Its content, or None if the archive has no such member.

    Raises:
        DataError: The archive or the member is damaged, or the member is larger than `MAX_MEMBER`.
    """
    if archive.suffix == ".tar":
        member = _tar(archive).get(name)
        return None if member is None else read_range(archive, member)
    try:
        opened = _zip(archive, os.getpid())
        size = opened.getinfo(name).file_size
        if size > MAX_MEMBER:
            raise DataError(f"{archive}: '{name}' unpacks to {size:,} bytes, expected at most {MAX_MEMBER:,}")
        with opened.open(name) as stream:
            # `ZipFile.read` would unpack everything before it compares with a size that may be a lie.
            return stream.read(size)
    except KeyError:
        return None
    except _ZIP_ERRORS as error:
        raise DataError(f"{archive}: '{name}' cannot be read ({error}); download the archive again") from error


# Cached for the whole process: shards are read in any order, and scanning one takes long.
@cache
def _tar(path: Path) -> dict[str, ByteRange]:
    return tar_members(path)


# One per process: processes that share an open file also share its position.
@lru_cache(maxsize=16)
def _zip(path: Path, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
