"""int8 and 4-bit weights: the linear layers of the language model are quantised, all other parts are not.

The parts of SliME (vision encoder, projector, global adapter, local compressor, selector), the embeddings and the head
keep the model's type. They are a small share of the memory, and the selection compares embeddings.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from torch import nn

from slime_vlm.errors import ConfigError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.pretrained import UNQUANTISED
from slime_vlm.model.slime_model import SlimeModel

QUANTIZATIONS = ("int8", "4bit", "torchao-int8")
"""int8 is absmax by row with separate outlier columns (LLM.int8), and 4bit is NF4 in blocks of 64 with products in
bfloat16, both by bitsandbytes. torchao-int8 is absmax by row of the weights alone, by torchao."""

# Numbers that share a scale, and rows that bitsandbytes packs together for a CPU.
_BLOCK, _PACKED_ROWS = 64, 32
# Packages of each kind, and the extra that installs them.
_BITSANDBYTES = (("bitsandbytes", "accelerate"), "quantize")
_PACKAGES = {"int8": _BITSANDBYTES, "4bit": _BITSANDBYTES, "torchao-int8": (("torchao", "accelerate"), "torchao")}


def check_quantization(kind: str) -> None:
    """Check that a kind of quantisation is known and its packages are installed.

    Raises:
        ConfigError: The kind is unknown, or a package is missing.
    """
    if kind not in QUANTIZATIONS:
        raise ConfigError(f"quantization '{kind}' is unknown, expected one of {', '.join(QUANTIZATIONS)}")
    packages, extra = _PACKAGES[kind]
    for package in packages:
        try:
            absent = importlib.util.find_spec(package) is None
        # The module is blocked.
        except ValueError:
            absent = True
        if absent:
            raise ConfigError(
                f"quantization '{kind}' needs {package}, which is not installed: pip install \"slime-vlm[{extra}]\""
            )


def kept_modules(model: SlimeModel) -> list[str]:
    """Return the names of the modules that no quantisation changes: all but the language model's layers."""
    return [*(f"model.{name}" for name in UNQUANTISED if getattr(model, name, None) is not None), "lm_head"]


def quantization_config(kind: str, config: SlimeConfig) -> Any:
    """Return the `quantization_config` of `from_pretrained`.

    Args:
        kind: One of `QUANTIZATIONS`.
        config: Config of the model.

    Raises:
        ConfigError: As in `check_quantization`, or a width of the language model does not allow 4 bits.
    """
    check_quantization(kind)
    with torch.device("meta"):
        model = SlimeModel(config)
    kept = kept_modules(model)
    if kind == "torchao-int8":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        # Otherwise every product of every layer logs a line about a cast that is part of int8.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    for name, layer in model.language_model.named_modules():
        # Checked here, since bitsandbytes would fail only in the first forward pass.
        if isinstance(layer, nn.Linear) and (layer.in_features % _BLOCK or layer.out_features % _PACKED_ROWS):
            raise ConfigError(
                f"4bit needs widths that are multiples of {_BLOCK} and {_PACKED_ROWS}, but the language model's {name} "
                f"goes from {layer.in_features} to {layer.out_features}; use int8"
            )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=kept,
    )
