"""Read the two pretrained parts of a new SliME from folders, hub ids and GGUF files, and check them before use."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from slime_vlm.checkpoints.gguf_files import gguf_shapes
from slime_vlm.checkpoints.hub import download, is_hub_id
from slime_vlm.checkpoints.json_files import check_folder, read_json
from slime_vlm.checkpoints.tensor_files import folder_tensors, has_weights
from slime_vlm.checkpoints.validation import (
    check_counts,
    check_kernels,
    check_statistics,
    check_tokenizer,
    check_total,
)
from slime_vlm.errors import CheckpointError, ConfigError, one_line
from slime_vlm.model import recogniser_encoder  # noqa: F401  # A folder may hold one, and transformers has to know it.
from slime_vlm.model.language_model import keep_scores_bounded
from slime_vlm.model.vision_families import family_of

# Errors of transformers, tokenizers and gguf for a folder or file that is damaged or of another kind.
_READ_ERRORS = (
    SafetensorError,
    StrictDataclassError,
    ImportError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
)


def vision_config_of(name: str) -> PretrainedConfig:
    """Read the config of the vision encoder of a folder or hub id. Of a model with two towers, take the vision part.

    Raises:
        CheckpointError: There is no such model, or it does not take images.
    """
    config = _read_config(name, "a vision encoder, such as CLIP, SigLIP or DINOv2", {})
    config = getattr(config, "vision_config", config)
    kind = MODEL_MAPPING.get(type(config), None)
    if getattr(kind, "main_input_name", None) != "pixel_values":
        raise CheckpointError(f"{name} is a model of type '{config.model_type}', expected a vision encoder")
    pooling_head = family_of(config.model_type).pooling_head_field
    if pooling_head is not None and getattr(config, pooling_head, False):
        # Nothing here uses it, so it is neither built nor saved.
        setattr(config, pooling_head, False)
    return _unnamed(config)


def text_config_of(name: str) -> PretrainedConfig:
    """Read the config of the language model of a folder, hub id or GGUF file. Of several parts, take the text part.

    Raises:
        CheckpointError: There is no such model, or it is not a language model.
        ConfigError: A GGUF file needs a package that is not installed.
    """
    source, options = _language_source(name)
    config = _read_config(source, "a language model, such as Llama or Qwen", options)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise CheckpointError(f"{name} is a model of type '{config.model_type}', expected a language model")
    return _unnamed(config.get_text_config())


def _read_config(name: str, expected: str, options: Mapping[str, str]) -> PretrainedConfig:
    path = Path(name).expanduser()
    if path.is_file():
        raise CheckpointError(f"{name} is a file, expected a folder or hub id of {expected}")
    if not path.exists() and not is_hub_id(name):
        raise CheckpointError(f"{name}: no such folder, expected a folder or hub id (owner/name) of {expected}")
    folder = _folder(name, weights=False)
    check_folder(folder)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, **options)
    except _READ_ERRORS as error:
        raise CheckpointError(f"{name} is not {expected} ({one_line(error)})") from None
    parts = [config, *(getattr(config, part, None) for part in config.sub_configs)]
    check_kernels(name, [("attn_implementation", getattr(part, "_attn_implementation", None)) for part in parts])
    if not is_hub_id(name):
        _check_size(name, folder, config, options)
    return config


def _folder(name: str, *, weights: bool) -> Path:
    """Return the folder of a part. A hub id is downloaded unless the cache has it."""
    return download(name, weights=weights) if is_hub_id(name) else Path(name).expanduser()


def _with_weights(name: str, options: Mapping[str, str]) -> str:
    """Return the folder of a part with its weights. Those of the hub are compared with the config here.

    Raises:
        CheckpointError: They are not on the hub or too large for the disk, or the config describes a far larger model.
    """
    folder = _folder(name, weights=True)
    if is_hub_id(name):
        # Their header was not on this machine when the config was read.
        _check_size(name, folder, AutoConfig.from_pretrained(str(folder), trust_remote_code=False), options)
    return str(folder)


def _check_size(name: str, folder: Path, config: PretrainedConfig, options: Mapping[str, str]) -> None:
    """Compare a config with the header of the weights beside it, before transformers builds what it describes.

    Raises:
        CheckpointError: The config describes a far larger model.
    """
    if options:
        shapes = gguf_shapes(folder / options["gguf_file"])
    elif has_weights(folder):
        shapes = {key: tensor.shape for key, tensor in folder_tensors(folder).items()}
    else:
        return
    check_counts(name, config.to_dict(), shapes)
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
    except (*_READ_ERRORS, ArithmeticError) as error:
        raise CheckpointError(f"{name}: its config does not describe a model ({one_line(error)})") from None
    check_total(name, model, sum(math.prod(shape) for shape in shapes.values()))


def _unnamed(config: PretrainedConfig) -> PretrainedConfig:
    """Clear the path and the stored type of a part. They do not apply to the model made of it."""
    config.name_or_path, config.dtype = "", None
    return config


def _language_source(name: str) -> tuple[str, dict[str, str]]:
    """Return the folder or hub id of a language model, and the options for reading it."""
    path = Path(name).expanduser()
    found = [path] if path.is_file() else []
    if path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
        if len(found) > 1:
            raise CheckpointError(f"{name} holds {len(found)} GGUF files, expected one; pass the file itself")
    if not found:
        return str(path), {}
    if found[0].suffix.lower() != ".gguf":
        raise CheckpointError(f"{name} is a file, expected a folder, a hub id or a file that ends in .gguf")
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f'{name} is read with {package}, which is not installed: pip install "slime-vlm[gguf]"')
    # Before transformers reads it: it would believe every count.
    gguf_shapes(found[0])
    return str(found[0].parent), {"gguf_file": found[0].name}


def vision_weights(name: str) -> dict[str, Tensor]:
    """Read the weights of a vision encoder without its pooling head. Of a model with two towers, take the vision part.

    Raises:
        CheckpointError: The weights are damaged or incomplete.
    """
    try:
        whole, info = AutoModel.from_pretrained(
            _with_weights(name, {}), output_loading_info=True, trust_remote_code=False
        )
    except _READ_ERRORS as error:
        raise CheckpointError(f"{name} is damaged or incomplete ({one_line(error)}); fetch it again") from None
    tower = getattr(whole, "vision_model", whole)
    prefix = "" if tower is whole else "vision_model."
    used = [key.removeprefix(prefix) for key in info["missing_keys"] if key.startswith(prefix)]
    _check_complete(name, [key for key in used if not key.startswith(("head.", "pooler."))])
    return {key: value for key, value in tower.state_dict().items() if not key.startswith("head.")}


def read_language_model(name: str, dtype: torch.dtype | None) -> Any:
    """Read a language model with its head.

    Args:
        name: Folder, hub id or GGUF file.
        dtype: Type of the weights. None keeps the stored one (bfloat16 for GGUF).

    Raises:
        CheckpointError: The weights are damaged or incomplete.
    """
    source, options = _language_source(name)
    source = _with_weights(source, options)
    settings: dict[str, Any] = {"dtype": dtype or "auto"}
    if options:
        settings = {"dtype": dtype or torch.bfloat16, "quantization_config": GgufConfig(dequantize=True), **options}
    try:
        language, info = AutoModelForCausalLM.from_pretrained(
            source, output_loading_info=True, trust_remote_code=False, **settings
        )
    except _READ_ERRORS as error:
        raise CheckpointError(f"{name} is damaged or incomplete ({one_line(error)}); fetch it again") from None
    _check_complete(name, info["missing_keys"])
    ends = language.generation_config.eos_token_id
    if not all(isinstance(end, int | None) for end in (ends if isinstance(ends, list) else [ends])):
        raise CheckpointError(f"{name}: generation_config.json has eos_token_id {ends!r:.80}, expected token ids")
    keep_scores_bounded(language)
    return language.eval()


def _check_complete(name: str, missing: Any) -> None:
    # transformers would initialise missing tensors at random and continue.
    if missing:
        raise CheckpointError(f"{name} lacks {len(missing)} tensor(s), {min(missing)} among them; fetch it again")


def read_tokenizer(llm: str) -> Any:
    """Read the tokenizer of a language model, with padding on the left.

    A tokenizer without a padding token pads with the unknown token, or else with the end-of-text token.

    Raises:
        CheckpointError: There is no tokenizer, or it has no character offsets.
    """
    source, options = _language_source(llm)
    folder = str(_folder(source, weights=False))
    check_tokenizer(Path(folder))
    try:
        # On the left for generation. Set here, since tokenizers do not save a side that is set later. Training rows are
        # always padded on the right.
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False, **options)
    except _READ_ERRORS as error:
        raise CheckpointError(f"{llm}: the tokenizer cannot be read ({one_line(error)})") from None
    if not tokenizer.is_fast:
        raise CheckpointError(f"{llm}: the tokenizer has no character offsets, expected one with a tokenizer.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def separator_id(tokenizer: Any) -> int:
    """Return the id of the comma between global and local tokens (paper section 3.4), or of its last piece."""
    comma = tokenizer.convert_tokens_to_ids(",")
    if comma is None or comma == tokenizer.unk_token_id:
        comma = tokenizer(",", add_special_tokens=False).input_ids[-1]
    return comma


def image_statistics(vision: str) -> dict[str, Any]:
    """Read the mean and standard deviation of colours that a vision encoder was trained with.

    Raises:
        CheckpointError: They are not in the folder of the weights.
    """
    folder = _folder(vision, weights=False)
    for name in ("preprocessor_config.json", "processor_config.json"):
        settings = read_json(folder / name) if (folder / name).exists() else {}
        settings = settings.get("image_processor", settings)
        if {"image_mean", "image_std"} <= set(settings):
            check_statistics(f"{vision}: {name}", settings)
            return {key: settings[key] for key in ("image_mean", "image_std")}
    raise CheckpointError(
        f"{vision} has no preprocessor_config.json with image_mean and image_std, expected them beside the weights: "
        "every family of encoders has its own"
    )
