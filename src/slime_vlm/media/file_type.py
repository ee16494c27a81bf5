"""What a reader declares about its format: how files of it begin, and the function that reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from slime_vlm.media.request import Request

HEAD_BYTES = 1024
"""How many bytes of a file `FileType.recognizes` gets. Readers look for the signature of a PDF this far."""


@dataclass(frozen=True)
class FileType:
    """A format, or several formats with the same reader.

    Attributes:
        recognizes: Tells from the first `HEAD_BYTES` bytes whether a file has this format.
        read: Reads the requested image of a file as upright 8-bit RGB.
        suffixes: Endings of file names, in small letters. They decide only when no format recognizes the bytes.
    """

    recognizes: Callable[[bytes], bool]
    read: Callable[[Request], Image.Image]
    suffixes: tuple[str, ...] = ()


def is_container(head: bytes) -> bool:
    """Tell whether a file is an ISO base media file, the container of HEIC, AVIF and MP4."""
    return head[4:8] == b"ftyp"


def brands(head: bytes) -> set[bytes]:
    """Return the brands in the first box of an ISO base media file; they tell HEIC, AVIF and MP4 apart."""
    if not is_container(head):
        return set()
    return {head[start : start + 4] for start in range(8, min(int.from_bytes(head[:4], "big"), len(head)), 4)}
