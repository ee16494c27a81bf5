"""Check the header of a GGUF file before the package gguf reads it.

That package trusts every count and length in the file. A count of a billion would take all memory, and one beyond the
end of the file gives an error without words.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import NoReturn

from slime_vlm.errors import CheckpointError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_UINT32, _STRING, _ARRAY = 4, 8, 9
# The first tensor starts at a multiple of this many bytes, unless a setting says otherwise.
_ALIGNMENT = 32
# struct's letter of every plain type of a setting, by its number.
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

# The package gguf makes two arrays of each element of a setting. The largest vocabularies have 0.3 million tokens.
_MOST_ELEMENTS = 2_000_000
_MOST_SETTINGS = 10_000
_MOST_TENSORS = 100_000
_MOST_DIMENSIONS = 4


def gguf_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Walk through the header of a GGUF file.

    Returns:
        The shape of every tensor by name, as GGUF orders it.

    Raises:
        CheckpointError: It is not a GGUF file, is truncated, or has counts that do not fit its size.
    """
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise CheckpointError(f"{path} is not a GGUF file: it does not start with the letters GGUF; fetch it again")
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Header(path, content).shapes()
        except struct.error:
            raise CheckpointError(f"{path} is truncated: it ends within its header; fetch it again") from None


class _Header:
    """A position in the header of a file."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.position = path, content, 4
        self.num_elements = 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `gguf_shapes`."""
        version = self._number("I")
        if version not in _VERSIONS:
            self._refuse(f"has version {version}, expected 2 or 3 in the byte order of this machine")
        num_tensors, num_settings = self._number("Q"), self._number("Q")
        if num_tensors > _MOST_TENSORS or num_settings > _MOST_SETTINGS:
            self._refuse(f"announces {num_tensors:,} tensors and {num_settings:,} settings")
        alignment = _ALIGNMENT
        for _ in range(num_settings):
            name, kind, position = self._string(), self._number("I"), self.position
            self._value(kind)
            if name == "general.alignment" and kind == _UINT32:
                (alignment,) = struct.unpack_from("<I", self.content, position)
        shapes, ends = {}, [0]
        for _ in range(num_tensors):
            name = self._string()
            num_dimensions = self._number("I")
            if num_dimensions > _MOST_DIMENSIONS:
                self._refuse(f"has a tensor of {num_dimensions:,} dimensions")
            shapes[name] = tuple(self._number("Q") for _ in range(num_dimensions))
            ends.append(self._end(shapes[name], self._number("I"), self._number("Q")))
        missing = -(-self.position // max(alignment, 1)) * alignment + max(ends) - len(self.content)
        if missing > 0:
            self._refuse(f"is truncated: its last tensor ends {missing:,} bytes behind it")
        return shapes

    def _number(self, letter: str) -> int:
        (value,) = struct.unpack_from("<" + letter, self.content, self.position)
        self.position += struct.calcsize("<" + letter)
        return int(value)

    def _string(self) -> str:
        start, length = self.position + 8, self._number("Q")
        self._skip(length)
        return bytes(self.content[start : start + length]).decode("utf-8", "replace")

    def _skip(self, length: int) -> None:
        if length > len(self.content) - self.position:
            self._refuse(f"is truncated: a setting of {length:,} bytes goes beyond its end")
        self.position += length

    def _value(self, kind: int) -> None:
        if kind in _PLAIN:
            self._skip(struct.calcsize("<" + _PLAIN[kind]))
        elif kind == _STRING:
            self._skip(self._number("Q"))
        elif kind == _ARRAY:
            of, count = self._number("I"), self._number("Q")
            self.num_elements += count
            if self.num_elements > _MOST_ELEMENTS:
                self._refuse(f"has lists of more than {_MOST_ELEMENTS:,} elements in its settings")
            if of in _PLAIN:
                self._skip(count * struct.calcsize("<" + _PLAIN[of]))
            elif of == _STRING:
                for _ in range(count):
                    self._skip(self._number("Q"))
            else:
                self._refuse(f"has a list of type {of} in its settings, expected numbers or texts")
        else:
            self._refuse(f"has a setting of the unknown type {kind}")

    def _end(self, shape: tuple[int, ...], kind: int, offset: int) -> int:
        """Return the end of a tensor, in bytes from the end of the header."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            self._refuse(f"has a tensor of the unknown type {kind}")
        return offset + math.prod(shape) * size // block

    def _refuse(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self.path} {what}; fetch it again")
