"""Checkpoints in the published layout (`llava_llama`) to native ones; strict about every tensor."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from slime_vlm.errors import CheckpointError, SlimeError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.processing_slime import SlimeProcessor
from slime_vlm.published import generation_config, one_line, read_json, read_published
from slime_vlm.weight_names import is_unused, native_tensors

_SHARD_BYTES = 4 * 1024**3
# Python objects hidden in a pickle are never built (weights_only=True); these are the ways in which reading can fail.
_READ_ERRORS = (
    SafetensorError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        source: Folder in the published layout.
        target: Folder that was written, None for a conversion in memory.
        conversation_style: Style that the tokenizer asks for.
        num_tensors: Native tensors.
        num_parameters: Numbers in them.
        unused: Published tensors left out because nothing reads them.
    """

    source: str
    target: str | None
    conversation_style: str
    num_tensors: int
    num_parameters: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        place = "memory" if self.target is None else self.target
        return (
            f"{self.source} -> {place}: {self.num_tensors} tensors, {self.num_parameters / 1e6:,.1f} million "
            f"parameters, conversation style {self.conversation_style}, {len(self.unused)} unused tensors left out"
        )


def convert(src: str | Path, dst: str | Path, *, dtype: torch.dtype | None = None) -> ConversionReport:
    """Convert a folder in the published layout to a native one; nothing is left at `dst` when it fails.

    Args:
        src: Folder to read.
        dst: Folder to write; must not exist or be empty.
        dtype: Type to cast the weights to; None keeps every tensor as it is stored.

    Returns:
        What was done.

    Raises:
        CheckpointError: `src` is not of the published layout, is damaged or holds tensors that are unknown, missing or
            of another shape; or `dst` is not empty.
    """
    src, dst = Path(src), Path(dst)
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise CheckpointError(f"{dst} exists already, expected a new or empty folder; choose another one")
    config, processor = read_published(src)
    # The folder appears under its name only when it is whole.
    part = dst.with_name(dst.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        reader = _WeightReader(src, config)
        _write_shards(reader, part, dtype)
        config.architectures = [SlimeForConditionalGeneration.__name__]
        if dtype is not None:
            config.dtype = dtype
        config.save_pretrained(part)
        processor.save_pretrained(part)
        generation_config(src, config, processor).save_pretrained(part)
        if dst.exists():
            dst.rmdir()
        part.rename(dst)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return reader.report(dst, processor)


def load_published(
    src: str | Path, *, dtype: torch.dtype | None = None, adjust: Callable[[SlimeConfig], None] | None = None
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Convert a folder in the published layout in memory.

    Args:
        src: Folder to read.
        dtype: Type of the weights; None takes the config's.
        adjust: Changes the config once the weights are checked against it.

    Raises:
        CheckpointError: As in `convert`.
    """
    src = Path(src)
    config, processor = read_published(src)
    state = dict(_WeightReader(src, config))
    if adjust is not None:
        adjust(config)
    model = SlimeForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype or config.dtype or torch.float32
    )
    model.generation_config = generation_config(src, config, processor)
    return model, processor.follow(config)


class _WeightReader:
    """Iterates over the native (name, tensor) pairs of a published folder and checks that they are all there."""

    def __init__(self, src: Path, config: SlimeConfig) -> None:
        self.src = src
        self.files = _weight_files(src)
        # On the meta device the model is only names and shapes.
        with torch.device("meta"):
            model = SlimeForConditionalGeneration(config)
        self.expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if config.tie_word_embeddings:
            self.expected.pop("lm_head.weight", None)
        self.unused: list[str] = []
        self.num_parameters = 0

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        missing, unknown = dict.fromkeys(self.expected), []
        for path in self.files:
            for published, tensor in _read_tensors(path):
                if is_unused(published):
                    self.unused.append(published)
                    continue
                pairs = list(native_tensors(published, tensor))
                if not pairs or any(name not in missing for name, _ in pairs):
                    unknown.append(published)
                    continue
                for name, part in pairs:
                    if part.shape != self.expected[name]:
                        raise CheckpointError(
                            f"{path}: {published} gives {name} the shape {list(part.shape)}, "
                            f"expected {list(self.expected[name])} by config.json"
                        )
                    del missing[name]
                    self.num_parameters += part.numel()
                    # Parts of a fused tensor share its memory, which safetensors refuses.
                    yield name, part.clone(memory_format=torch.contiguous_format)
        if unknown:
            raise CheckpointError(
                f"{self.src} has {len(unknown)} tensor(s) that the model of its config.json has no place for: "
                f"{_some(unknown)}"
            )
        if missing:
            raise CheckpointError(
                f"{self.src} lacks {len(missing)} tensor(s) of the model of its config.json: {_some(list(missing))}"
            )

    def report(self, target: Path | None, processor: SlimeProcessor) -> ConversionReport:
        assert processor.style is not None
        return ConversionReport(
            source=str(self.src),
            target=None if target is None else str(target),
            conversation_style=processor.style.name,
            num_tensors=len(self.expected),
            num_parameters=self.num_parameters,
            unused=tuple(self.unused),
        )


def _weight_files(src: Path) -> list[Path]:
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = src / f"{stem}.{suffix}.index.json"
        if index.is_file():
            names = sorted(set(read_json(index).get("weight_map", {}).values()))
            absent = [name for name in names if not (src / name).is_file()]
            if absent or not names:
                raise CheckpointError(f"{index} names {_some(absent) or 'no file'}, expected every shard beside it")
            return [src / name for name in names]
        if (src / f"{stem}.{suffix}").is_file():
            return [src / f"{stem}.{suffix}"]
    raise CheckpointError(f"{src} has no weights, expected model.safetensors or pytorch_model.bin (or their shards)")


def _read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (not a dict: it has no iterator)
                    yield name, file.get_tensor(name)
        else:
            yield from torch.load(path, map_location="cpu", weights_only=True, mmap=True).items()
    except _READ_ERRORS as error:
        if isinstance(error, SlimeError):
            raise
        raise CheckpointError(f"{path} is damaged or incomplete ({one_line(error)}); fetch it again") from None


def _write_shards(tensors: _WeightReader, folder: Path, dtype: torch.dtype | None) -> None:
    """Write tensors as they come, file by file, so that a large model never is in memory whole."""
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    total = size = 0

    def flush() -> None:
        nonlocal pending, size
        if pending:
            save_file(pending, folder / f"shard-{len(shards)}", metadata={"format": "pt"})
            shards.append(list(pending))
        pending, size = {}, 0

    for name, tensor in tensors:
        tensor = tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
        if size + tensor.nbytes > _SHARD_BYTES:
            flush()
        pending[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return
    weight_map = {}
    for index, names in enumerate(shards):
        file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{index}").rename(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    index_json = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_json, indent=1), encoding="utf-8")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
