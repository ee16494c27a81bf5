"""Tensors in files: found by name, checked before any is loaded, loaded one at a time, written in shards.

Every file is treated as hostile. The declared names, shapes and types are read first, and no tensor is loaded until all
of them fit. Pickles are read with `weights_only=True`, so that no code in them runs.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.errors import CheckpointError, one_line

SHARD_BYTES = 2 * 1024**3
"""Maximum size of a written file. One shard is in memory at a time, so this bounds the memory of a conversion."""

_STEMS = (("model", "safetensors"), ("pytorch_model", "bin"))
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_READ_ERRORS = (
    SafetensorError,
    zipfile.BadZipFile,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in its file, or is computed from such tensors when it is read.

    Attributes:
        shape: Shape of the tensor.
        dtype: Type of the tensor. None for a type that this package does not use.
        origin: File and name in it, for messages.
        read: Read the values. Every call opens the file again, so that nothing stays in memory.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    origin: str
    read: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        """Size of the values in bytes."""
        return self.num_elements * (self.dtype.itemsize if self.dtype else 1)

    @property
    def num_elements(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    def load(self, dtype: torch.dtype | None = None) -> Tensor:
        """Read the values as weights of a model.

        Args:
            dtype: Type to cast to. None keeps the stored type.

        Raises:
            CheckpointError: A value is NaN or infinite.
        """
        tensor = self.read()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        if not bool(tensor.isfinite().all()):
            kind = "" if dtype is None else f" as {str(dtype).removeprefix('torch.')}"
            raise CheckpointError(f"{self.origin} holds NaN or infinity{kind}, expected finite weights; fetch it again")
        return tensor

    def chunk(self, count: int) -> tuple[StoredTensor, ...]:
        """Split into equal parts along the first dimension. If that is impossible, return itself for every part."""
        if count == 1 or not self.shape or self.shape[0] % count:
            return (self,) * count
        shape = (self.shape[0] // count, *self.shape[1:])

        def part(index: int) -> Callable[[], Tensor]:
            # Copied, since a part shares the memory of the whole, and safetensors refuses to write that.
            return lambda: self.read().chunk(count)[index].clone(memory_format=torch.contiguous_format)

        return tuple(StoredTensor(shape, self.dtype, self.origin, part(index)) for index in range(count))


def in_memory(tensor: Tensor, origin: str) -> StoredTensor:
    """Wrap a tensor that is in memory already."""
    return StoredTensor(tuple(tensor.shape), tensor.dtype, origin, lambda: tensor)


def stacked(parts: list[StoredTensor]) -> StoredTensor:
    """Concatenate parts along the first dimension, the inverse of `chunk`.

    Raises:
        CheckpointError: The parts differ in width or type.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(part.shape[1:] != first.shape[1:] or part.dtype != first.dtype for part in parts):
        raise CheckpointError(f"{first.origin} has another width or type than the other parts of its tensor")
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    return StoredTensor(shape, first.dtype, first.origin, lambda: torch.cat([part.read() for part in parts]))


def has_weights(folder: Path) -> bool:
    """Whether a folder has the weights of a whole model, in one file or in shards."""
    return any((folder / f"{stem}.{suffix}{end}").exists() for stem, suffix in _STEMS for end in ("", ".index.json"))


def folder_tensors(folder: Path) -> dict[str, StoredTensor]:
    """List all tensors of a model's folder, in the order of its files.

    Raises:
        CheckpointError: There is no tensor, a shard is missing, left over or damaged, or index and shards disagree.
    """
    for stem, suffix in _STEMS:
        index = folder / f"{stem}.{suffix}.index.json"
        if index.exists():
            return _sharded_tensors(index, stem, suffix)
        if (folder / f"{stem}.{suffix}").exists():
            return file_tensors(folder / f"{stem}.{suffix}")
    raise CheckpointError(f"{folder} has no weights, expected model.safetensors or pytorch_model.bin (or their shards)")


def _sharded_tensors(index: Path, stem: str, suffix: str) -> dict[str, StoredTensor]:
    folder = index.parent
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files; fetch it again")
    names = sorted(set(weight_map.values()))
    # A checkpoint must not read files outside its folder.
    outside = [name for name in names if Path(name).name != name or "\\" in name]
    if outside:
        raise CheckpointError(f"{index} names {some(outside)}, expected file names in its own folder; do not use it")
    absent = [name for name in names if not (folder / name).exists()]
    if absent or not names:
        raise CheckpointError(f"{index} names {some(absent) or 'no file'}, expected every shard beside it")
    pattern = re.compile(rf"{stem}-\d+-of-\d+\.{suffix}")
    extra = [path.name for path in sorted(folder.iterdir()) if pattern.fullmatch(path.name) and path.name not in names]
    if extra:
        raise CheckpointError(f"{folder} has {some(extra)}, which {index.name} does not name; fetch both again")
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        found = file_tensors(folder / name)
        listed = {tensor for tensor, file in weight_map.items() if file == name}
        if found.keys() != listed:
            wrong = sorted(found.keys() ^ listed)
            raise CheckpointError(f"{index} and {name} disagree about {some(wrong)}; fetch both again")
        tensors |= found
    return tensors


def file_tensors(path: Path) -> dict[str, StoredTensor]:
    """List all tensors of a file, `.safetensors` or a pickle of torch.

    Raises:
        CheckpointError: The file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is {'a folder' if path.is_dir() else 'missing'}, expected a file of weights")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; fetch it again")
    tensors = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensor, expected weights; fetch it again")
    return tensors


def _safetensors(path: Path) -> dict[str, StoredTensor]:
    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            with reading(path), safe_open(path, framework="pt") as file:
                return file.get_tensor(name)

        return read

    tensors = {}
    with reading(path), safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (not a dict: it has no iterator)
            header = file.get_slice(name)
            shape = tuple(header.get_shape())
            tensors[name] = StoredTensor(shape, _DTYPES.get(header.get_dtype()), f"{path}: {name}", reader(name))
    return tensors


def _pickled(path: Path) -> dict[str, StoredTensor]:
    def reader(name: str) -> Callable[[], Tensor]:
        # The values are memory-mapped, and the mapping ends with its tensor, so the values are copied.
        return lambda: _unpickle(path)[name].clone(memory_format=torch.contiguous_format)

    tensors = {}
    for name, value in _unpickle(path).items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise CheckpointError(f"{path} holds a {type(value).__name__} under {name!r}, expected a plain tensor")
        if value.nbytes > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path} expands {name} to {list(value.shape)} from less data; do not use it")
        dtype = value.dtype if value.dtype in _DTYPES.values() else None
        tensors[name] = StoredTensor(tuple(value.shape), dtype, f"{path}: {name}", reader(name))
    return tensors


def _unpickle(path: Path) -> dict[str, Any]:
    with reading(path):
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is damaged or incomplete (no zip file of torch.save); fetch it again")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        # torch.save never compresses. A file whose content is larger than itself is made to exhaust the memory.
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise CheckpointError(f"{path} is compressed, which torch.save never does; do not use it")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            raise CheckpointError(
                f"{path} holds other objects than tensors, possibly code, which is never run; do not use it"
            ) from None
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors by name")
        return content


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert every error of a damaged file to a CheckpointError."""
    try:
        yield
    except _READ_ERRORS as error:
        raise CheckpointError(f"{path} is damaged or incomplete ({one_line(error)}); fetch it again") from None


def write_weights(
    folder: Path, tensors: Mapping[str, StoredTensor], dtype: torch.dtype | None = None, shard_bytes: int | None = None
) -> None:
    """Write tensors as `model.safetensors`, or as shards with their index, one shard in memory at a time.

    Args:
        folder: Folder to write to.
        tensors: Tensors by name. They are read in this order.
        dtype: Type to cast floating point numbers to. None keeps the stored types.
        shard_bytes: Maximum size of a file. None takes `SHARD_BYTES`.

    Raises:
        CheckpointError: A tensor cannot be read.
        OSError, SafetensorError: The folder cannot be written to, or the disk is full.
    """
    limit = SHARD_BYTES if shard_bytes is None else shard_bytes
    shards: list[list[str]] = [[]]
    size = total = 0
    for name, tensor in tensors.items():
        cast = dtype is not None and tensor.dtype is not None and tensor.dtype.is_floating_point
        num_bytes = tensor.num_elements * dtype.itemsize if cast and dtype is not None else tensor.num_bytes
        if shards[-1] and size + num_bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += num_bytes
        total += num_bytes
    weight_map: dict[str, str] = {}
    for index, names in enumerate(shards):
        file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        save_file({name: tensors[name].load(dtype) for name in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        content = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def some(names: list[str]) -> str:
    """Join the first few of many names, for a message."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
