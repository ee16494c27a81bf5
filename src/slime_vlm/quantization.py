"""int8 and 4-bit weights: the language model's linear layers in few bits, all else as it is.

The parts of SliME (vision encoder, projector, global adapter, local compressor, selector), the embeddings and the head
stay in the model's own type: they are a small share of the memory, and the selection compares embeddings.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from slime_vlm.errors import ConfigError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.slime_model import SlimeModel

QUANTIZATIONS = ("int8", "4bit")
"""int8: absmax by row with outlier columns apart (LLM.int8); 4bit: NF4 in blocks of 64, products in bfloat16."""

_PACKAGES = ("bitsandbytes", "accelerate")


def check_quantization(kind: str) -> None:
    """Check that a kind of quantisation is known and its packages are installed.

    Raises:
        ConfigError: It is not, or they are not.
    """
    if kind not in QUANTIZATIONS:
        raise ConfigError(f"quantization '{kind}' is unknown, expected one of {', '.join(QUANTIZATIONS)}")
    for package in _PACKAGES:
        try:
            absent = importlib.util.find_spec(package) is None
        # A module that is blocked.
        except ValueError:
            absent = True
        if absent:
            raise ConfigError(
                f"quantization '{kind}' needs {package}, which is not installed: pip install \"slime-vlm[quantize]\""
            )


def kept_modules(config: SlimeConfig) -> list[str]:
    """Names of the modules that no quantisation touches: everything but the language model's layers."""
    with torch.device("meta"):
        parts = [name for name, _ in SlimeModel(config).named_children() if name != "language_model"]
    return [*(f"model.{name}" for name in parts), "lm_head"]


def quantization_config(kind: str, config: SlimeConfig) -> Any:
    """What `from_pretrained` takes as `quantization_config`.

    Args:
        kind: One of `QUANTIZATIONS`.
        config: Config of the model.

    Raises:
        ConfigError: As in `check_quantization`.
    """
    check_quantization(kind)
    from transformers import BitsAndBytesConfig

    kept = kept_modules(config)
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=kept,
    )
