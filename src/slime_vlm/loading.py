"""One call that loads any SliME: the shipped one, a native folder or hub id, a checkpoint in the published layout."""

from __future__ import annotations

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PretrainedConfig

from slime_vlm.convert import load_published, read_native
from slime_vlm.errors import CheckpointError, ConfigError
from slime_vlm.hub import SHIPPED, resolve
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.processing_slime import SlimeProcessor
from slime_vlm.published import PUBLISHED_MODEL_TYPES, is_published, one_line, read_json
from slime_vlm.quantization import check_quantization, quantization_config

__all__ = ["SHIPPED", "check_overrides", "load", "resolve"]


def load(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    quantization: str | None = None,
    **config_overrides: Any,
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Load a model, ready to answer, and its processor.

    Args:
        name_or_path: `nano` (shipped), a folder or a hub id, native or in the published layout.
        device: Where to put it; None = the GPU if there is one, else the CPU.
        dtype: Type of the weights, a torch type or its name; None = float32 on a CPU, bfloat16 elsewhere
            and wherever a quantisation is wanted.
        quantization: "int8" or "4bit" for the linear layers of the language model; all other parts stay in `dtype`.
        **config_overrides: `SlimeConfig` fields to change, `selector_top_p=0.5`.

    Returns:
        The model in eval mode, and the processor that fits its config.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged or of another kind.
        ConfigError: An override, the device, the type or the quantisation is unknown, or its package is missing.
    """
    check_overrides(config_overrides)
    place = _device(device)
    number_type = _dtype(torch.bfloat16 if dtype is None and quantization is not None else dtype, place)
    if quantization is not None:
        check_quantization(quantization)
    folder = resolve(name_or_path)
    fields = read_json(folder / "config.json")
    if is_published(fields):
        model, processor = load_published(
            folder,
            dtype=number_type,
            adjust=lambda config: _apply_overrides(config, config_overrides),
            loading=lambda config: _loading(config, quantization, place),
        )
    elif fields.get("model_type") == SlimeConfig.model_type:
        model, processor = _load_native(folder, number_type, config_overrides, quantization, place)
    else:
        raise CheckpointError(
            f"{folder} holds a model of type '{fields.get('model_type')}', expected '{SlimeConfig.model_type}' or "
            f"{', '.join(PUBLISHED_MODEL_TYPES)}"
        )
    return (model if quantization is not None else model.to(place)).eval(), processor


def check_overrides(overrides: dict[str, Any]) -> None:
    """Check the names of config overrides.

    Raises:
        ConfigError: A name is no field of `SlimeConfig`; the message has the nearest one.
    """
    fixed = {field.name for field in dataclasses.fields(PretrainedConfig)} | set(SlimeConfig.sub_configs)
    known = [field.name for field in dataclasses.fields(SlimeConfig) if field.name not in fixed]
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ConfigError(f"'{name}' is no config field, expected one of SlimeConfig; did you mean '{near[0]}'?")


def _apply_overrides(config: SlimeConfig, overrides: dict[str, Any]) -> None:
    for name, value in overrides.items():
        setattr(config, name, value)
    try:
        config.check()
    except TypeError as error:
        raise ConfigError(f"a value among {overrides} has a wrong type ({one_line(error)})") from None


def _loading(config: SlimeConfig, quantization: str | None, device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` that put a model where it belongs; quantised ones cannot be moved afterwards."""
    if quantization is None:
        return {}
    return {"quantization_config": quantization_config(quantization, config), "device_map": {"": device}}


def _load_native(
    folder: Path, dtype: torch.dtype, overrides: dict[str, Any], quantization: str | None, device: torch.device
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    config, processor = read_native(folder)
    _apply_overrides(config, overrides)
    try:
        model, info = SlimeForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True, **_loading(config, quantization, device)
        )
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder} is damaged or incomplete ({one_line(error)}); fetch it again") from None
    # An override may leave parts of a checkpoint without use; what the model needs has to be there in any case.
    wrong = {name: sorted(map(str, info[name])) for name in ("missing_keys", "mismatched_keys", "unexpected_keys")}
    if overrides:
        wrong["unexpected_keys"] = []
    for kind, names in wrong.items():
        if names:
            raise CheckpointError(
                f"{folder} has {len(names)} {kind.replace('_keys', '')} tensor(s), {names[0]} among them; its "
                "config.json or an override does not fit its weights"
            )
    return model, processor.follow(config)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device '{device}' is unknown, expected cpu, cuda, cuda:1 or mps") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}' is not there: torch sees no GPU; leave it out or use cpu")
    return found


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    names = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
    found = getattr(torch, names.get(dtype, dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(f"dtype '{dtype}' is unknown, expected float32, bfloat16 or float16")
    return found
