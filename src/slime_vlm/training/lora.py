"""Low-rank adapters on the language model instead of full training (variant of stage 3, paper section 4.1).

At the end of a stage they are merged into its weights, or kept apart in a folder in peft's layout that refers to the
model they were trained on (`slime_vlm.checkpoints.lora.adapter_folder` reads it).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from slime_vlm.checkpoints.lora.weights import PREFIX, merged_weight
from slime_vlm.errors import ConfigError

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.training.recipe import LoraSettings

LORA_MARK = ".lora_"
"""Part of the name of every low-rank weight, and of no other."""

BYTES_OF_WEIGHT = {"float32": 4.0, "bfloat16": 2.0, "4bit": 0.5 + 4 / 64}
"""By `lora.base_weights`. 4bit: with one scale in float32 for 64 weights."""

_A, _B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."


def linear_layers(model: SlimeForConditionalGeneration) -> dict[str, nn.Linear]:
    """Return the linear layers of the language model, which get adapters, by their names in it.

    Raises:
        ConfigError: The language model has none.
    """
    language_model = model.model.language_model
    found = {name: layer for name, layer in language_model.named_modules() if isinstance(layer, nn.Linear)}
    if not found:
        raise ConfigError(f"lora needs linear layers, the language model {type(language_model).__name__} has none")
    return found


def add_lora(model: SlimeForConditionalGeneration, settings: LoraSettings) -> None:
    """Add adapters to every linear layer of the language model, in place.

    Args:
        model: The model. Its own parts (projector, adapters, compressor) and the head do not change.
        settings: Rank, scale, dropout, and the type of the layers beside the adapters.

    Raises:
        ConfigError: The language model has no linear layer.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    layers = linear_layers(model)
    if settings.base_weights == "bfloat16":
        for layer in layers.values():
            layer.to(torch.bfloat16)
    language_model = model.model.language_model
    if settings.base_weights == "4bit":
        # transformers sets this on the whole model only, and peft looks at the part that it gets.
        language_model.is_loaded_in_4bit = True
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_last_names(layers),
        bias="none",
    )
    LoraModel(language_model, config, "default")
    for name, parameter in model.named_parameters():
        if LORA_MARK in name:
            # peft gives them the type of the layer. In bfloat16, small optimizer steps would be rounded away.
            parameter.data = parameter.data.float()


def _last_names(layers: Mapping[str, nn.Linear]) -> list[str]:
    return sorted({name.rsplit(".", 1)[-1] for name in layers})


def merged(weights: Mapping[str, Tensor], settings: LoraSettings) -> dict[str, Tensor]:
    """Merge the adapters in the weights of a model into the layers beside them.

    Args:
        weights: State of the whole model.
        settings: The settings of `add_lora`.

    Returns:
        The weights of the model without adapters.
    """
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if LORA_MARK in name:
            continue
        stem = name.removesuffix(f"{_BASE}weight")
        if stem != name:
            value = merged_weight(value, weights[stem + _A], weights[stem + _B], settings.alpha / settings.rank)
        found[name.replace(_BASE, ".")] = value
    return found


def save_lora(
    folder: Path,
    model: SlimeForConditionalGeneration,
    weights: Mapping[str, Tensor],
    trained: set[str],
    settings: LoraSettings,
    base: str,
) -> None:
    """Write adapters, and the parts that trained whole (`modules_to_save`), in peft's layout.

    Args:
        folder: Target folder, created if missing.
        model: The model with adapters.
        weights: State of the whole model.
        trained: Names of all parameters that trained.
        settings: The settings of `add_lora`.
        base: Their base checkpoint: a folder, a hub id or `nano`.
    """
    from peft import LoraConfig

    # peft saves whole modules only: model.global_adapter.gate_weight -> model.global_adapter.
    whole = {".".join(name.split(".")[:2]) for name in trained if LORA_MARK not in name}
    saved: dict[str, Any] = {}
    for name, value in weights.items():
        if LORA_MARK in name:
            saved[PREFIX + name.replace(".default.", ".")] = value.contiguous()
        elif name.startswith(tuple(f"{module}." for module in whole)):
            saved[PREFIX + name] = value.contiguous()
    targets = "|".join(map(re.escape, _last_names(_without_adapters(model))))
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=rf"model\.language_model\..+\.({targets})",
        modules_to_save=sorted(whole) or None,
        bias="none",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(folder)
    save_file(saved, folder / "adapter_model.safetensors", {"format": "pt"})
    model.generation_config.save_pretrained(folder)
    described = copy.deepcopy(model.config)
    described.architectures = [type(model).__name__]
    # The quantization of the base during training does not decide how it is loaded later.
    if hasattr(described, "quantization_config"):
        del described.quantization_config
    described.save_pretrained(folder)


def bytes_saved(model: SlimeForConditionalGeneration, settings: LoraSettings) -> float:
    """Return the bytes that the type of the layers beside the adapters saves compared with float32."""
    saved = 4 - BYTES_OF_WEIGHT[settings.base_weights]
    return sum(layer.weight.numel() for layer in _without_adapters(model).values()) * saved


def _without_adapters(model: SlimeForConditionalGeneration) -> dict[str, nn.Linear]:
    return {
        name.removesuffix(_BASE.rstrip(".")): layer
        for name, layer in linear_layers(model).items()
        if LORA_MARK not in name
    }
