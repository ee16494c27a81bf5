"""Convert checkpoints between the published layout (`llava_llama`) and the native one, a shard at a time.

A converted folder keeps, under `published/`, the published files that this package does not use: config.json, tokenizer
files and unused tensors. The way back takes them from there, so that it restores every bit.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig

from slime_vlm.checkpoints.hub import resolve
from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.layouts import PUBLISHED_MODEL_TYPES, is_published
from slime_vlm.checkpoints.lora.adapter_folder import is_lora_folder
from slime_vlm.checkpoints.native import build_model, read_native, written
from slime_vlm.checkpoints.published.config import (
    native_config,
    published_fields,
)
from slime_vlm.checkpoints.published.reader import PublishedCheckpoint, open_published, tokenizer_files
from slime_vlm.checkpoints.published.vision_weights import PREFIX as VISION_PREFIX
from slime_vlm.checkpoints.published.vision_weights import tower_name
from slime_vlm.checkpoints.published.weight_names import published_names
from slime_vlm.checkpoints.tensor_files import StoredTensor, folder_tensors, in_memory, some, stacked, write_weights
from slime_vlm.errors import CheckpointError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.hub_card import write_card
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor

_KEPT = "published"
_UNUSED = "unused"
_VISION_FOLDER = "vision_tower"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConversionReport:
    """Report of a conversion.

    Attributes:
        source: Folder that was read.
        target: Folder that was written.
        layout: Layout of the target, "native" or "published".
        conversation_style: Conversation style of the tokenizer.
        num_tensors: Number of tensors of the model.
        num_parameters: Number of their elements.
        unused: Published tensors that no model uses. They are kept for the way back.
        notes: Notes for the user, one line each.
    """

    source: str
    target: str
    layout: str
    conversation_style: str
    num_tensors: int
    num_parameters: int
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = (
            f"{self.source} -> {self.target} ({self.layout}): {self.num_tensors} tensors, "
            f"{self.num_parameters / 1e6:,.1f} million parameters, conversation style {self.conversation_style}, "
            f"{len(self.unused)} unused tensors set aside"
        )
        return "\n".join((first, *self.notes))


def convert(
    src: str | Path, dst: str | Path, *, base: str | Path | None = None, dtype: torch.dtype | None = None
) -> ConversionReport:
    """Convert a published checkpoint to a native one, or a native one to the published layout.

    If it fails, nothing is left at `dst`. A conversion that is killed leaves `dst.part`, which is not a checkpoint yet.

    Args:
        src: Folder or hub id to read. In the published layout: a whole checkpoint, LoRA weights or adapter files.
        dst: Folder to write. It must not exist, or be empty.
        base: Folder or hub id of the model that LoRA weights or adapter files were trained on.
        dtype: Type to cast the weights to. None keeps the stored types.

    Returns:
        A report.

    Raises:
        CheckpointError: `src` is of neither layout, is damaged, holds tensors that are unknown, missing or of another
            shape, or is a model that the other layout cannot hold. Or the base is missing or does not fit, or `dst` is
            not empty or cannot be written.
    """
    src, dst = resolve(src), Path(dst)
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise CheckpointError(f"{dst} exists already, expected a new or empty folder; choose another one")
    fields = read_json(src / "config.json")
    if fields.get("model_type") == SlimeConfig.model_type:
        if is_lora_folder(src):
            raise CheckpointError(f"{src} is a LoRA over another model; merge it with slime merge {src} OUT first")
        if base is not None:
            raise CheckpointError(f"{src} is a native checkpoint, only published adapters need a base; leave it out")
        return _to_published(src, dst, dtype)
    if not is_published(fields):
        raise CheckpointError(
            f"{src} is of model type '{fields.get('model_type')}', expected the published layout "
            f"({', '.join(PUBLISHED_MODEL_TYPES)}) or the native one ({SlimeConfig.model_type})"
        )
    return _to_native(open_published(src, base), dst, dtype)


def load_published(
    src: str | Path,
    *,
    dtype: torch.dtype | None = None,
    adjust: Callable[[SlimeConfig], dict[str, Any]] | None = None,
    loading: Callable[[SlimeConfig], dict[str, Any]] | None = None,
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Convert a folder in the published layout in memory.

    Args:
        src: Folder to read.
        dtype: Type of the weights. None takes the config's.
        adjust: Changes the config after the weights are checked against it, and returns the changed fields.
        loading: Returns more arguments of `from_pretrained` for a config.

    Raises:
        CheckpointError: As in `convert`.
        ConfigError: The weights do not fit the changed config.
    """
    checkpoint = open_published(Path(src))
    for note in checkpoint.notes:
        _logger.log(logging.WARNING if "differ" in note else logging.INFO, "%s: %s", src, note)
    config = checkpoint.config
    changed = {} if adjust is None else adjust(config)
    number_type = dtype or config.dtype or torch.float32
    state = {name: tensor.load() for name, tensor in checkpoint.tensors.items()}
    arguments = {} if loading is None else loading(config)
    model = build_model(src, None, config, changed, state_dict=state, dtype=number_type, **arguments)
    model.generation_config = checkpoint.generation
    return model, checkpoint.processor.follow(config)


def _to_native(checkpoint: PublishedCheckpoint, dst: Path, dtype: torch.dtype | None) -> ConversionReport:
    config, processor = checkpoint.config, checkpoint.processor
    with written(dst) as part:
        write_weights(part, checkpoint.tensors, dtype)
        kept = part / _KEPT
        kept.mkdir()
        if checkpoint.unused:
            (kept / _UNUSED).mkdir()
            write_weights(kept / _UNUSED, checkpoint.unused)
        for path in [*tokenizer_files(checkpoint.tokenizer_folder), checkpoint.folder / "generation_config.json"]:
            _copy(path, kept)
        tower = tower_name(checkpoint.fields)
        # Never outside the folder, whatever name is in the config.
        if Path(tower).name == tower and tower not in ("", "..", _UNUSED) and (checkpoint.folder / tower).is_dir():
            (kept / tower).mkdir()
            for name in ("config.json", "preprocessor_config.json"):
                _copy(checkpoint.folder / tower / name, kept / tower)
        _copy(checkpoint.folder / "config.json", kept)
        processor.save_pretrained(part)
        checkpoint.generation.save_pretrained(part)
        # Last, since a folder without it is not a checkpoint.
        config.architectures = [SlimeForConditionalGeneration.__name__]
        if dtype is not None:
            config.dtype = dtype
        config.save_pretrained(part)
        write_card(part, config, sources=[checkpoint.folder])
    return _report(checkpoint.folder, dst, "native", processor, checkpoint.tensors, checkpoint.unused, checkpoint.notes)


def _to_published(src: Path, dst: Path, dtype: torch.dtype | None) -> ConversionReport:
    config, processor = read_native(src)
    fields = published_fields(config)
    if dtype is not None:
        fields["torch_dtype"] = str(dtype).removeprefix("torch.")
    stored = _native_tensors(src, config)
    names = published_names(stored, config.projector_type)
    tensors = {published: stacked([stored[name] for name in parts]) for published, parts in names.items()}
    unused = _unused_tensors(src, config)
    kept = src / _KEPT
    with written(dst) as part:
        write_weights(part, tensors | unused, dtype)
        if (kept / "config.json").is_file():
            config_json = _updated(kept, fields, config)
            for path in kept.iterdir():
                if path.name not in ("config.json", _UNUSED):
                    shutil.copytree(path, part / path.name) if path.is_dir() else _copy(path, part)
        else:
            processor.tokenizer.save_pretrained(part)
            _copy(src / "generation_config.json", part)
            config_json = {
                "architectures": ["LlavaLlamaForCausalLM"],
                "model_type": PUBLISHED_MODEL_TYPES[0],
                "mm_vision_tower": _write_vision(part, config, processor, stored, dtype),
                **fields,
            }
        (part / "config.json").write_text(json.dumps(config_json, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return _report(src, dst, "published", processor, tensors, unused, [])


def _native_tensors(src: Path, config: SlimeConfig) -> dict[str, StoredTensor]:
    stored = folder_tensors(src)
    with torch.device("meta"):
        expected = {
            name: tuple(value.shape) for name, value in SlimeForConditionalGeneration(config).state_dict().items()
        }
    if config.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
    wrong = sorted(expected.keys() ^ stored.keys())
    if wrong:
        raise CheckpointError(
            f"{src}: config.json and weights disagree about {len(wrong)} tensor(s): {some(wrong)}; fetch both again"
        )
    for name, tensor in stored.items():
        if tensor.shape != expected[name] or tensor.dtype is None or not tensor.dtype.is_floating_point:
            raise CheckpointError(
                f"{tensor.origin} is {tensor.dtype} {list(tensor.shape)}, expected floating point numbers "
                f"{list(expected[name])} by config.json; fetch both again"
            )
    return stored


def _unused_tensors(src: Path, config: SlimeConfig) -> dict[str, StoredTensor]:
    """Return the tensors that published code has but never uses: the stored ones, or initial values for its gate."""
    kept = src / _KEPT / _UNUSED
    if kept.exists():
        return folder_tensors(kept)
    if config.projector_type != "gated":
        return {}
    first: dict[str, Tensor] = {
        "w_noise": torch.zeros(config.vision_width, 2),
        "mean": torch.zeros(1),
        "std": torch.ones(1),
    }
    return {
        f"model.mm_projector.{name}": in_memory(value.to(config.dtype or torch.float32), name)
        for name, value in first.items()
    }


def _updated(kept: Path, fields: Mapping[str, Any], config: SlimeConfig) -> dict[str, Any]:
    """Return the original config.json of a checkpoint, changed only in the fields that the model changed since."""
    published = read_json(kept / "config.json")
    before = published_fields(native_config(kept, published, config.vision_config))
    return published | {name: value for name, value in fields.items() if before.get(name) != value}


def _write_vision(
    part: Path,
    config: SlimeConfig,
    processor: SlimeProcessor,
    stored: Mapping[str, StoredTensor],
    dtype: torch.dtype | None,
) -> str:
    """Write the vision encoder to a separate folder, where published code expects it, and return its name."""
    folder = part / _VISION_FOLDER
    folder.mkdir()
    tower = {
        f"vision_model.{name.removeprefix(VISION_PREFIX)}": tensor
        for name, tensor in stored.items()
        if name.startswith(VISION_PREFIX)
    }
    write_weights(folder, tower, dtype)
    vision: CLIPVisionConfig = config.vision_config
    vision.save_pretrained(folder)
    image_processor = processor.image_processor
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "image_mean": list(image_processor.image_mean),
        "image_std": list(image_processor.image_std),
        "size": {"shortest_edge": config.view_size},
        "crop_size": {"height": config.view_size, "width": config.view_size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n", encoding="utf-8")
    return _VISION_FOLDER


def _copy(path: Path, folder: Path) -> None:
    if path.is_file():
        # Copy the content alone: hub caches hold links and read-only files.
        shutil.copyfile(path, folder / path.name)


def _report(
    src: Path,
    dst: Path,
    layout: str,
    processor: SlimeProcessor,
    tensors: Mapping[str, StoredTensor],
    unused: Mapping[str, StoredTensor],
    notes: list[str],
) -> ConversionReport:
    style = processor.style
    return ConversionReport(
        source=str(src),
        target=str(dst),
        layout=layout,
        conversation_style="unknown" if style is None else style.name,
        num_tensors=len(tensors),
        num_parameters=sum(tensor.num_elements for tensor in tensors.values()),
        unused=tuple(unused),
        notes=tuple(notes),
    )
