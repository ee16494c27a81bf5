"""Folders of checkpoints on a tiny language model: a native SliME, a base, LoRA weights, adapter files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.conftest import tiny_config
from tests.tiny_published import CONFIG, DIM, HIDDEN, LAYERS, VISION_CONFIG, published_weights
from tests.tiny_text import byte_tokenizer

CLIP = "model.vision_tower.vision_tower."


def save_native(folder: Path, **overrides: Any) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """A random native model with a byte tokenizer, saved; `overrides` are fields of its config."""
    tokenizer = byte_tokenizer()
    config = tiny_config(**overrides)
    config.text_config.vocab_size = len(tokenizer)
    processor = SlimeProcessor.from_config(config, tokenizer, "llama3")
    torch.manual_seed(0)
    model = SlimeForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def is_adapter(name: str) -> bool:
    """Whether a published tensor is saved by the stages that train adapters."""
    return "mm_projector" in name or "sampler" in name


def write_base(folder: Path, weights: dict[str, Tensor] | None = None) -> Path:
    """A plain language model, as it was before it became a SliME."""
    folder.mkdir(parents=True)
    tokenizer = byte_tokenizer(padding_side="right")
    text = {name: value for name, value in CONFIG.items() if not name.startswith(("mm_", "use_"))}
    text |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(tokenizer)}
    (folder / "config.json").write_text(json.dumps(text))
    tokenizer.save_pretrained(folder)
    weights = published_weights() if weights is None else weights
    kept = {name: value for name, value in weights.items() if not is_adapter(name) and "vision_tower" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_tower(folder: Path, weights: dict[str, Tensor] | None = None) -> Path:
    """The public vision encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(VISION_CONFIG))
    weights = published_weights() if weights is None else weights
    kept = {name.removeprefix(CLIP): value.float() for name, value in weights.items() if name.startswith(CLIP)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_adapters(folder: Path, *files: str, prefix: str = "", **fields: Any) -> Path:
    """Adapter files on a base, with the config that published training saves beside them."""
    write_tower(folder / "vision_tower")
    config = {**CONFIG, "vocab_size": len(byte_tokenizer()), **fields}
    (folder / "config.json").write_text(json.dumps(config))
    # Training saves parameters, so the statistics of the gate, which are buffers, are not among them.
    weights = {name: value for name, value in published_weights().items() if not name.endswith((".mean", ".std"))}
    for file in files:
        marks = {"mm_projector.bin": ("mm_projector",), "sampler.bin": ("sampler",)}.get(
            file, ("mm_projector", "sampler")
        )
        kept = {prefix + name: value for name, value in weights.items() if any(mark in name for mark in marks)}
        torch.save(kept, folder / file)
    return folder


def low_rank(rank: int = 2, seed: int = 3) -> dict[str, Tensor]:
    """Published names of low-rank weights beside two kinds of linear layers."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(LAYERS):
        for name, rows, columns in (("self_attn.q_proj", DIM, DIM), ("mlp.down_proj", DIM, HIDDEN)):
            prefix = f"base_model.model.model.layers.{layer}.{name}."
            found[prefix + "lora_A.weight"] = torch.randn((rank, columns), generator=generator).bfloat16()
            found[prefix + "lora_B.weight"] = torch.randn((rows, rank), generator=generator).bfloat16()
    return found


def write_lora(folder: Path, base: Path | str, rank: int = 2, **settings: Any) -> Path:
    """LoRA weights as published training leaves them."""
    write_adapters(folder, "non_lora_trainables.bin", prefix="base_model.model.")
    adapter = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "bias": "none", "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps({**adapter, **settings}))
    save_file(low_rank(rank), folder / "adapter_model.safetensors", {"format": "pt"})
    return folder
