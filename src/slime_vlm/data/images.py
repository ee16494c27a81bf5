"""Open the image of a training record: a path, bytes, base64 text, or a member of an archive, but never an address.

Records may come from strangers, so paths must not lead out of the image folder. Benchmark records follow other rules,
see `evaluation.images`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from slime_vlm.data.archives import ARCHIVES, read_member
from slime_vlm.errors import DataError, MediaError
from slime_vlm.media import MAX_MEMORY, is_address, open_image, open_image_bytes
from slime_vlm.media.orientation import LYING, ORIENTATION_TAG
from slime_vlm.media.pillow import UNTRUSTED_FORMATS

# Bytes to hash at either end of an image file.
_SAMPLE = 1 << 16

# Shorter texts are paths. Even the smallest PNG is longer.
_LEAST_BASE64 = 64


class MissingImageError(DataError):
    """An image file, or a member of an archive, does not exist."""


def open_stored_image(value: Any, root: Path, max_memory: int = MAX_MEMORY) -> Image.Image:
    """Open an image of a record as 8-bit RGB, turned upright.

    Args:
        value: A path below `root`. If one of its parts is a zip or tar file, the rest names a member. Or bytes, base64
            text (with or without `data:...;base64,`), or `{"bytes": ..., "path": ...}` as in Parquet files.
        root: The folder or archive that paths start from.
        max_memory: The most memory to take while the image is opened, in bytes.

    Raises:
        MissingImageError: The image does not exist.
        DataError: The image is damaged, is too large, is an address, leads out of `root`, or is none of the above.
    """
    found, name = _find(value, root)
    try:
        if isinstance(found, Path):
            return open_image(found, untrusted=True, max_memory=max_memory)
        return open_image_bytes(found, name, max_memory=max_memory)
    except MediaError as error:
        raise DataError(str(error)) from error


def stored_image_content(value: Any, root: Path) -> bytes:
    """Return the bytes of an image as they are stored, not decoded.

    Args:
        value: As for `open_stored_image`.
        root: As for `open_stored_image`.

    Raises:
        MissingImageError: The image does not exist.
        DataError: The image cannot be read.
    """
    found, _name = _find(value, root)
    if isinstance(found, bytes):
        return found
    try:
        return found.read_bytes()
    except OSError as error:
        raise DataError(f"{found}: {error.strerror}") from error


def stored_image_file(value: Any, root: Path) -> Path | None:
    """Return the file that holds an image, which is an archive for a member of one. It may not exist.

    Args:
        value: As for `open_stored_image`.
        root: As for `open_stored_image`.

    Returns:
        The file, or None for an image that is stored in the record.

    Raises:
        DataError: The value names no image.
    """
    if stored_bytes(value) is not None:
        return None
    path = _below(path_of(value), root)
    member = None if os.path.isfile(path) else find_member(path)
    return path if member is None else member[0]


def stored_image_digest(value: Any, root: Path) -> str:
    """Return a hash of an image: of its bytes, or of the size and both ends of its file.

    Args:
        value: As for `open_stored_image`.
        root: As for `open_stored_image`.

    Raises:
        MissingImageError: The image does not exist.
        DataError: The image cannot be read.
    """
    found, _name = _find(value, root)
    if isinstance(found, bytes):
        return hashlib.blake2b(found, digest_size=16).hexdigest()
    try:
        with found.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.blake2b(str(size).encode() + file.read(_SAMPLE), digest_size=16)
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    except OSError as error:
        raise DataError(f"{found}: {error.strerror}") from error
    return digest.hexdigest()


def stored_image_size(value: Any, root: Path) -> tuple[int, int] | None:
    """Read the size of an image from its header.

    Args:
        value: As for `open_stored_image`.
        root: As for `open_stored_image`.

    Returns:
        (height, width) of the upright image, or None if the header does not tell.
    """
    try:
        found, _name = _find(value, root)
        with Image.open(found if isinstance(found, Path) else io.BytesIO(found), formats=UNTRUSTED_FORMATS) as image:
            lying = image.getexif().get(ORIENTATION_TAG) in LYING
            return (image.width, image.height) if lying else (image.height, image.width)
    # Pillow may not know the format. If the image is damaged, opening it in full reports that.
    except Exception:
        return None


def _find(value: Any, root: Path) -> tuple[Path | bytes, str]:
    """Return the file or the bytes of an image, and the name that messages use."""
    content = stored_bytes(value)
    if content is not None:
        return content, "the image in the record"
    path = _below(path_of(value), root)
    # os.path returns False for impossible names. Some versions of pathlib raise.
    if os.path.isfile(path):
        return path, str(path)
    found = find_member(path)
    if found is None:
        hint = "; write / between folders, not \\" if "\\" in str(path) else ""
        raise MissingImageError(f"{path}: no such file{hint}")
    archive, member = found
    content = read_member(archive, member)
    if content is None:
        raise MissingImageError(f"{archive}: no member '{member}'")
    return content, f"{archive}/{member}"


def stored_bytes(value: Any) -> bytes | None:
    """Return the bytes of an image that is stored in the record itself, or None if a path names it.

    Raises:
        DataError: The base64 text is damaged.
    """
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        value = value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        return None
    if value.startswith("data:"):
        value = value.partition(",")[2]
    # Base64 has no dots. A path has one before its ending.
    elif len(value) < _LEAST_BASE64 or re.fullmatch(r"[A-Za-z0-9+/\s]+={0,2}", value) is None:
        return None
    try:
        return base64.b64decode(value, validate=False)
    # binascii.Error is one, too. The other kind is text beyond ASCII.
    except ValueError as error:
        raise DataError(f"the base64 text of the image is damaged ({error})") from None


def path_of(value: Any) -> str:
    """Return the path that names an image.

    Raises:
        DataError: The value is not a path, or is an address.
    """
    path = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(path, str) or not path:
        raise DataError(f"'image' is {value!r:.80}, expected a path, bytes or base64 text")
    if is_address(path):
        raise DataError(f"'image' is the address {path:.80}; images are not downloaded: download it and give its path")
    return path


def find_member(path: Path) -> tuple[Path, str] | None:
    """Split a path that leads through an archive into the archive and the name of the member."""
    for parent in path.parents:
        if parent.suffix in ARCHIVES and os.path.isfile(parent):
            return parent, path.relative_to(parent).as_posix()
    return None


def _below(path: str, root: Path) -> Path:
    # Links are not resolved, because image folders often are links.
    top = os.path.normpath(root)
    joined = os.path.normpath(os.path.join(top, path))
    if os.path.commonpath([os.path.abspath(joined), os.path.abspath(top)]) != os.path.abspath(top):
        raise DataError(f"'image' {path:.80} leads out of {root}; give a path below it, or another image folder")
    return Path(joined)
