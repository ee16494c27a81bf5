"""Open a published checkpoint of any kind, to be read tensor by tensor.

It may be a whole checkpoint, LoRA weights on a base, or the adapter files of the paper's stages 1 and 2. A base is a
plain language model, or a SliME in the published or the native layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from slime_vlm.checkpoints.hub import at_hand, resolve
from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.layouts import is_published
from slime_vlm.checkpoints.lora.weights import ADAPTER_CONFIG, LoraWeights, read_lora
from slime_vlm.checkpoints.native import CONFIG_ERRORS
from slime_vlm.checkpoints.published.config import (
    TOKENIZER_FILES,
    generation_config,
    read_published,
)
from slime_vlm.checkpoints.published.vision_weights import PREFIX as VISION_PREFIX
from slime_vlm.checkpoints.published.vision_weights import compare_with_public, public_tower, tower_name
from slime_vlm.checkpoints.published.weight_names import is_unused, native_names, native_tensors
from slime_vlm.checkpoints.tensor_files import StoredTensor, file_tensors, folder_tensors, has_weights, in_memory, some
from slime_vlm.errors import CheckpointError, one_line
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor

ADAPTER_FILES = ("mm_projector.bin", "sampler.bin")
"""Files of stages 1 and 2. A tensor may be in either of them, since some files have the wrong name."""

_BESIDE_LORA = "non_lora_trainables.bin"
# Parts that a config without local tiles, or without the global view, never runs. They are not trained yet.
_IDLE = {
    "global": ("local_compressor", "selector"),
    "local": ("global_adapter",),
    "both": (),
}


@dataclass
class PublishedCheckpoint:
    """Content of a published folder and its base.

    Attributes:
        folder: The folder.
        fields: Its config.json.
        config: Native config.
        processor: Processor of the model.
        tokenizer_folder: Folder of the tokenizer.
        generation: Generation config.
        tensors: All tensors of the model by native name, complete and of the right shape.
        unused: Published tensors without a counterpart, because no forward pass uses them.
        notes: Notes for the user, one line each.
    """

    folder: Path
    fields: dict[str, Any]
    config: SlimeConfig
    processor: SlimeProcessor
    tokenizer_folder: Path
    generation: GenerationConfig
    tensors: dict[str, StoredTensor]
    unused: dict[str, StoredTensor]
    notes: list[str]


@dataclass
class _Collected:
    """Tensors collected for a whole model. Later ones replace earlier ones."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    unused: dict[str, StoredTensor] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def add_published(self, tensors: dict[str, StoredTensor]) -> None:
        for stored, tensor in tensors.items():
            # Weights that were trained beside a LoRA have peft's prefix.
            published = stored.removeprefix("base_model.model.")
            if is_unused(published):
                self.unused[published] = tensor
                continue
            native = dict(native_tensors(published, tensor))
            if not native:
                self.unknown.append(stored)
            self.tensors |= native


def open_published(src: Path, base: str | Path | None = None) -> PublishedCheckpoint:
    """Read and check a published checkpoint, except the values of its tensors.

    Args:
        src: Folder in the published layout: a whole checkpoint, LoRA weights, or adapter files.
        base: Folder or hub id of the model that LoRA weights and adapters were trained on. None takes the one that a
            LoRA recorded.

    Raises:
        CheckpointError: It is of another layout or damaged, or holds tensors that are unknown, missing or of another
            shape. Or the base is missing or does not fit.
    """
    fields = read_json(src / "config.json")
    lora = read_lora(src, native_names) if (src / ADAPTER_CONFIG).exists() else None
    adapters = [src / name for name in (_BESIDE_LORA, *ADAPTER_FILES) if (src / name).exists()]
    whole = lora is None and (has_weights(src) or not adapters)
    base_folder = None if whole else _base_folder(src, base, lora)
    if whole and base is not None:
        raise CheckpointError(f"{src} is a whole checkpoint, only LoRA weights and adapters need a base; leave it out")
    # Only the tokenizer tells the conversation style, and adapter folders rarely have one.
    has_tokenizer = any((src / name).exists() for name in ("tokenizer.json", "tokenizer.model"))
    tokenizer_folder = src if base_folder is None or has_tokenizer else base_folder
    config, processor = read_published(src, tokenizer_folder)

    collected = _Collected()
    notes = []
    if base_folder is None:
        collected.add_published(folder_tensors(src))
    else:
        collected = _base_tensors(base_folder)
        for path in adapters:
            collected.add_published(file_tensors(path))
        if lora is not None:
            collected.tensors = lora.merged_into(collected.tensors)
            notes += _other_base(lora, base_folder)
    # A tied head is stored only once, and some files list it twice.
    if config.tie_word_embeddings:
        collected.tensors.pop("lm_head.weight", None)
    name = tower_name(fields)
    own_vision = any(key.startswith(VISION_PREFIX) for key in collected.tensors)
    if not own_vision:
        collected.tensors |= _public_vision(src, name)
    model = empty_model(src, config, collected.tensors)
    notes += _fill_idle(model, collected, src, fits=not whole)
    _check(src, model, collected, base_folder)
    if own_vision:
        notes.append(compare_with_public(collected.tensors, src, name))
    else:
        notes.append(f"vision weights: those of {name}, the checkpoint has none")
    return PublishedCheckpoint(
        folder=src,
        fields=fields,
        config=config,
        processor=processor,
        tokenizer_folder=tokenizer_folder,
        generation=generation_config(tokenizer_folder, config, processor),
        tensors=collected.tensors,
        unused=collected.unused,
        notes=notes,
    )


def _base_folder(src: Path, base: str | Path | None, lora: LoraWeights | None) -> Path:
    if base is not None:
        return resolve(base)
    recorded = None if lora is None else lora.base
    if recorded is None:
        raise CheckpointError(
            f"{src} holds adapters alone, expected also the model that they were trained on; pass it as --base"
        )
    found = at_hand(recorded)
    if found is None:
        raise CheckpointError(
            f"{src} is a LoRA on '{recorded}', which is neither a folder nor in the hub's cache; pass it as --base"
        )
    return found


def _base_tensors(folder: Path) -> _Collected:
    fields = read_json(folder / "config.json")
    if is_published(fields) and not has_weights(folder):
        inner = open_published(folder)
        return _Collected(dict(inner.tensors), dict(inner.unused))
    collected = _Collected()
    if fields.get("model_type") == SlimeConfig.model_type:
        collected.tensors = folder_tensors(folder)
    else:
        # A plain language model has the same tensor names as a published SliME.
        collected.add_published(folder_tensors(folder))
    return collected


def _other_base(lora: LoraWeights, folder: Path) -> list[str]:
    recorded = lora.base
    if recorded is None or at_hand(recorded) == folder or Path(recorded).name == folder.name:
        return []
    return [f"base: {folder}; the adapter records '{recorded}', make sure that both are the same model"]


def _public_vision(src: Path, name: str) -> dict[str, StoredTensor]:
    tower = public_tower(src, name, download=True)
    if tower is None:
        raise CheckpointError(
            f"{src}: neither it nor its base has vision weights, and '{name}' is not a folder that has them"
        )
    return tower


def empty_model(src: Path, config: SlimeConfig, tensors: Iterable[str]) -> SlimeForConditionalGeneration:
    """Build a model on the meta device, for the names and shapes of its tensors.

    Args:
        src: Folder of the config, for messages.
        config: Config of a Llama and a CLIP encoder.
        tensors: Native names of the tensors in the files.

    Raises:
        CheckpointError: The config does not describe a model, or its depth is not that of the tensors.
    """
    # A layer costs memory even without weights, so the config may not have more layers than the files.
    for part, prefix, sub_config in (
        ("language model", r"model\.language_model\.layers", config.text_config),
        ("vision encoder", r"model\.vision_tower\.encoder\.layers", config.vision_config),
    ):
        found = {match[1] for name in tensors if (match := re.match(rf"{prefix}\.(\d+)\.", name))}
        if len(found) != sub_config.num_hidden_layers:
            raise CheckpointError(
                f"{src}: config.json has {sub_config.num_hidden_layers} layers in the {part}, but the weights have "
                f"{len(found)}; fetch both again"
            )
    try:
        with torch.device("meta"):
            return SlimeForConditionalGeneration(config)
    except CONFIG_ERRORS as error:
        raise CheckpointError(
            f"{src}: config.json does not describe a model ({one_line(error)}); fetch it again"
        ) from None


def _fill_idle(model: SlimeForConditionalGeneration, collected: _Collected, src: Path, fits: bool) -> list[str]:
    """Initialise parts that adapter files lack because their stage does not run them."""
    filled = []
    for name in _IDLE[model.config.views] if fits else ():
        part: nn.Module | None = getattr(model.model, name)
        names = [] if part is None else [f"model.{name}.{key}" for key in part.state_dict()]
        if part is None or not names or any(key in collected.tensors for key in names):
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            part.to_empty(device="cpu").apply(model._init_weights)
        collected.tensors |= {
            f"model.{name}.{key}": in_memory(value, f"initial value of {key}")
            for key, value in part.state_dict().items()
        }
        filled.append(name)
    return [f"not trained yet: {', '.join(filled)}, which {src} lacks and does not use"] if filled else []


def _check(src: Path, model: SlimeForConditionalGeneration, collected: _Collected, base: Path | None) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
    unknown = collected.unknown + [
        tensor.origin.rsplit(": ", 1)[-1] for name, tensor in collected.tensors.items() if name not in expected
    ]
    if unknown:
        raise CheckpointError(
            f"{src} has {len(unknown)} tensor(s) that the model of its config.json does not have: {some(unknown)}"
        )
    missing = [name for name in expected if name not in collected.tensors]
    if missing:
        raise CheckpointError(f"{src} lacks {len(missing)} tensor(s) of the model of its config.json: {some(missing)}")
    hint = "" if base is None else f"; is {base} the base that it was trained on?"
    for name, tensor in collected.tensors.items():
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"{tensor.origin} gives {name} the shape {list(tensor.shape)}, expected {list(expected[name])} by "
                f"config.json{hint}"
            )
    for tensor in (*collected.tensors.values(), *collected.unused.values()):
        if tensor.dtype is None:
            raise CheckpointError(f"{tensor.origin} is of an unknown type, expected floating point numbers")
    for tensor in collected.tensors.values():
        if tensor.dtype is not None and not tensor.dtype.is_floating_point:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{tensor.origin} is of type {kind}, expected floating point numbers; fetch it again")


def tokenizer_files(folder: Path) -> list[Path]:
    """List the files of a folder's tokenizer."""
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
