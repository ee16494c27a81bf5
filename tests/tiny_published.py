"""A folder in the published layout, small enough to be written anew for every test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.tiny_text import byte_tokenizer

VISION, DIM, HIDDEN, LAYERS, TOKENS, QUERIES = 16, 24, 32, 2, 16, 4

CONFIG: dict[str, Any] = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava_llama",
    "hidden_act": "silu",
    "hidden_size": DIM,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "image_aspect_ratio": "anyres",
    "mm_hidden_size": VISION,
    "mm_learnable_gated": -1,
    "mm_patch_merge_type": "spatial",
    "mm_projector_type": "gated",
    "mm_resampler_dim": QUERIES,
    "mm_resampler_temp": 1.0,
    "mm_resampler_topp": 0.95,
    "mm_resampler_type": "cosine",
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "vision_tower",
    "seperator": 11,
    "tokenizer_model_max_length": 2048,
    "torch_dtype": "bfloat16",
    "use_global_only": False,
    "use_local_only": False,
}

VISION_CONFIG: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_act": "quick_gelu",
    "hidden_size": VISION,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "projection_dim": 8,
}


def shapes(vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of every tensor, written out by hand."""
    found: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (vocab_size, DIM),
        "model.embed_tokens.weight": (vocab_size, DIM),
        "model.norm.weight": (DIM,),
        "model.mm_projector.mean": (1,),
        "model.mm_projector.std": (1,),
        "model.mm_projector.w_gate": (VISION, 2),
        "model.mm_projector.w_noise": (VISION, 2),
        "model.mm_projector.projection.0.weight": (DIM, VISION),
        "model.mm_projector.projection.0.bias": (DIM,),
        "model.mm_projector.projection.2.weight": (DIM, DIM),
        "model.mm_projector.projection.2.bias": (DIM,),
    }
    for prefix, queries in (("model.mm_projector.attn.", TOKENS), ("model.sampler.post_qformer.", QUERIES)):
        found[prefix + "query"] = found[prefix + "pos_embed"] = (queries, VISION)
        found[prefix + "attn.in_proj_weight"] = (3 * VISION, VISION)
        found[prefix + "attn.in_proj_bias"] = (3 * VISION,)
        found[prefix + "attn.out_proj.weight"] = (VISION, VISION)
        found[prefix + "attn.out_proj.bias"] = (VISION,)
        for norm in ("ln_q", "ln_kv", "ln_post"):
            found[f"{prefix}{norm}.weight"] = found[f"{prefix}{norm}.bias"] = (VISION,)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            found[f"{prefix}self_attn.{name}_proj.weight"] = (DIM, DIM)
        found[prefix + "self_attn.rotary_emb.inv_freq"] = (4,)
        found[prefix + "mlp.gate_proj.weight"] = found[prefix + "mlp.up_proj.weight"] = (HIDDEN, DIM)
        found[prefix + "mlp.down_proj.weight"] = (DIM, HIDDEN)
        found[prefix + "input_layernorm.weight"] = found[prefix + "post_attention_layernorm.weight"] = (DIM,)
    clip = "model.vision_tower.vision_tower.vision_model."
    found[clip + "embeddings.class_embedding"] = (VISION,)
    found[clip + "embeddings.patch_embedding.weight"] = (VISION, 3, 14, 14)
    found[clip + "embeddings.position_embedding.weight"] = (TOKENS + 1, VISION)
    norms = [clip + "pre_layrnorm.", clip + "post_layernorm."]
    for layer in range(3):
        prefix = f"{clip}encoder.layers.{layer}."
        norms += [prefix + "layer_norm1.", prefix + "layer_norm2."]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found[f"{prefix}self_attn.{name}.weight"] = (VISION, VISION)
            found[f"{prefix}self_attn.{name}.bias"] = (VISION,)
        found[prefix + "mlp.fc1.weight"], found[prefix + "mlp.fc1.bias"] = (HIDDEN, VISION), (HIDDEN,)
        found[prefix + "mlp.fc2.weight"], found[prefix + "mlp.fc2.bias"] = (VISION, HIDDEN), (VISION,)
    for norm in norms:
        found[norm + "weight"] = found[norm + "bias"] = (VISION,)
    return found


def published_weights(seed: int = 0) -> dict[str, Tensor]:
    """Random bfloat16 tensors under the published names."""
    generator = torch.Generator().manual_seed(seed)
    size = len(byte_tokenizer())
    return {name: torch.randn(shape, generator=generator).mul(0.3).bfloat16() for name, shape in shapes(size).items()}


def write_published(folder: Path, weights: dict[str, Tensor] | None = None, **fields: Any) -> Path:
    """Write a published folder; `fields` change its config.json, `weights` its tensors."""
    (folder / "vision_tower").mkdir(parents=True)
    tokenizer = byte_tokenizer(padding_side="right")
    config = {**CONFIG, "vocab_size": len(tokenizer), **fields}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vision_tower" / "config.json").write_text(json.dumps(VISION_CONFIG))
    (folder / "vision_tower" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
    tokenizer.save_pretrained(folder)
    save_file(published_weights() if weights is None else weights, folder / "model.safetensors", {"format": "pt"})
    return folder
