"""Load any SliME: the shipped one, a native folder or hub id, or a checkpoint in the published layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig

from slime_vlm.checkpoints.hub import resolve
from slime_vlm.checkpoints.int8_linear import check_int8, use_int8
from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.layouts import PUBLISHED_MODEL_TYPES, is_published
from slime_vlm.checkpoints.lora.adapter_folder import is_lora_folder, open_lora, settings_folder
from slime_vlm.checkpoints.native import build_model, read_native
from slime_vlm.checkpoints.packed_linear import can_pack, use_packed
from slime_vlm.checkpoints.quantization import check_quantization, quantization_config
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.diagnostics.cpu_features import cpu_has_bf16
from slime_vlm.errors import CheckpointError, ConfigError, nearest, one_line
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor

__all__ = ["SHIPPED", "check_overrides", "load", "resolve"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
_SHORT_DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "double": "float64",
}


def load(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    quantization: str | None = None,
    attn_implementation: str | None = None,
    fast: bool = False,
    packed: bool = False,
    **config_overrides: Any,
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Load a model, ready to answer, and its processor.

    Args:
        name_or_path: `nano` (shipped), or a folder or hub id, native or in the published layout. A LoRA that a recipe,
            peft or TRL saved without its base is merged into the base in memory.
        device: Device of the model. None takes the GPU if there is one, else the CPU.
        dtype: Type of the weights, a torch type or its name. None takes bfloat16, or float32 on a CPU without
            quantisation.
        quantization: "int8", "4bit" or "torchao-int8" for the linear layers of the language model. All other parts
            stay in `dtype`.
        attn_implementation: "sdpa", "eager" or "flash_attention_2", for the parts that have it. None takes
            transformers' choice.
        fast: Trade rounding for speed on a CPU: bfloat16 where the CPU has instructions for it, else int8 in the linear
            layers of the vision encoder and the language model. A model with int8 layers cannot be trained, moved or
            saved.
        packed: Pack the weights of linear layers where that makes float32 faster: on a CPU of AMD with AVX-512. Results
            differ by rounding alone. Such a model cannot be trained, moved or saved. The commands of `slime` that only
            answer do so. Nothing changes elsewhere, nor with other numbers than float32.
        **config_overrides: `SlimeConfig` fields to change, such as `selector_top_p=0.5`.

    Returns:
        The model in eval mode, and the processor that fits its config.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged or of another kind.
        ConfigError: An override is unknown or does not fit the weights. Or the device, the type or the quantisation is
            unknown or not available, or its package is missing. Or `fast` does not fit them.
    """
    check_overrides(config_overrides)
    target = _device(device)
    if fast:
        dtype = _fast_dtype(target, dtype, quantization)
    number_type = _dtype(torch.bfloat16 if dtype is None and quantization is not None else dtype, target)
    if quantization is not None:
        check_quantization(quantization)
    loading = partial(_loading, quantization=quantization, device=target, attn_implementation=attn_implementation)
    folder = resolve(name_or_path)
    settings = settings_folder(folder)
    fields = read_json(settings / "config.json")
    if is_published(fields):
        from slime_vlm.checkpoints.published.convert import load_published

        model, processor = load_published(
            folder,
            dtype=number_type,
            adjust=lambda config: _apply_overrides(config, config_overrides),
            loading=loading,
        )
    elif fields.get("model_type") == SlimeConfig.model_type:
        model, processor = _load_native(folder, settings, number_type, config_overrides, loading)
    else:
        raise CheckpointError(
            f"{folder} holds a model of type '{fields.get('model_type')}', expected '{SlimeConfig.model_type}' or "
            f"{', '.join(PUBLISHED_MODEL_TYPES)}"
        )
    if fast and getattr(model, "is_quantized", False):
        raise ConfigError(f"fast rounds weights itself, but those of {folder} are quantized; leave it out")
    if fast and number_type == torch.float32:
        use_int8(model.model)
    model = (model if quantization is not None else model.to(target)).eval()
    if packed and not fast and target.type == "cpu" and number_type == torch.float32 and can_pack():
        use_packed(model.model)
    return model, processor


def _fast_dtype(device: torch.device, dtype: str | torch.dtype | None, quantization: str | None) -> torch.dtype:
    """Return the type of a fast model: bfloat16, or float32 where its products are int8.

    Raises:
        ConfigError: Another type or a quantization is asked for, too, or this is no CPU that gains.
    """
    for name, value in (("dtype", dtype), ("quantization", quantization)):
        if value is not None:
            raise ConfigError(f"fast chooses the numbers itself, but {name} is '{value}'; leave one of the two out")
    if device.type != "cpu":
        raise ConfigError(f"fast is for CPUs, but the device is {device}; leave it out, or choose the device cpu")
    if cpu_has_bf16():
        return torch.bfloat16
    check_int8()
    return torch.float32


def check_overrides(overrides: dict[str, Any]) -> None:
    """Check the names of config overrides.

    Raises:
        ConfigError: A name is not a field of `SlimeConfig`. The message has the closest field.
    """
    fixed = {field.name for field in dataclasses.fields(PretrainedConfig)} | set(SlimeConfig.sub_configs)
    known = [field.name for field in dataclasses.fields(SlimeConfig) if field.name not in fixed]
    for name in overrides:
        if name not in known:
            raise ConfigError(f"'{name}' is not a field of SlimeConfig; {nearest(name, known)}")


def _apply_overrides(config: SlimeConfig, overrides: dict[str, Any]) -> dict[str, Any]:
    """Change a config, and return the fields whose value changed."""
    changed = {name: value for name, value in overrides.items() if getattr(config, name) != value}
    for name, value in changed.items():
        setattr(config, name, value)
    try:
        config.check()
    except TypeError as error:
        raise ConfigError(f"a value among {overrides} has a wrong type ({one_line(error)})") from None
    return changed


def _loading(
    config: SlimeConfig, *, quantization: str | None, device: torch.device, attn_implementation: str | None
) -> dict[str, Any]:
    """Return further arguments of `from_pretrained`."""
    if attn_implementation not in (None, *_ATTENTIONS):
        raise ConfigError(f"attn_implementation is {attn_implementation!r}, expected one of {', '.join(_ATTENTIONS)}")
    if attn_implementation == "flash_attention_2" and find_spec("flash_attn") is None:
        raise ConfigError("attn_implementation 'flash_attention_2' needs the package flash-attn; use 'sdpa'")
    found: dict[str, Any] = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    if quantization is not None:
        # A quantised model cannot be moved afterwards.
        found |= {"quantization_config": quantization_config(quantization, config), "device_map": {"": device}}
    return found


def _load_native(
    folder: Path,
    settings: Path,
    dtype: torch.dtype,
    overrides: dict[str, Any],
    loading: Callable[[SlimeConfig], dict[str, Any]],
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    config, processor = read_native(settings)
    changed = _apply_overrides(config, overrides)
    arguments = loading(config)
    if not is_lora_folder(folder):
        return build_model(folder, folder, config, changed, dtype=dtype, **arguments), processor.follow(config)
    state = {name: tensor.load(dtype) for name, tensor in open_lora(folder).merged(dtype).items()}
    model = build_model(folder, None, config, changed, state_dict=state, dtype=dtype, **arguments)
    if (settings / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(settings)
    return model, processor.follow(config)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device '{device}' is unknown, expected cpu, cuda, cuda:1 or mps") from None
    if found.type == "meta":
        raise ConfigError("device 'meta' has no values, expected cpu, cuda, cuda:1 or mps")
    try:
        torch.empty(0, device=found)
    # torch was built without this kind (AssertionError), there is no such device, or a package is missing.
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ConfigError(f"device '{device}' is not available ({one_line(error)}); leave it out or use cpu") from None
    return found


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    name = str(dtype).removeprefix("torch.")
    name = _SHORT_DTYPES.get(name, name)
    if name not in _DTYPES:
        raise ConfigError(f"dtype '{name}' is unknown or not supported, expected {', '.join(_DTYPES)}")
    return _DTYPES[name]
