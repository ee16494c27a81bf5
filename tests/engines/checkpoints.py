"""Checkpoints with the chat formats and tokenizers of Llama 3 and Vicuna, and heads that vLLM's CPU kernels know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig

from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor

TOKENIZERS = Path(__file__).parents[1] / "parity" / "data" / "checkpoints"
BUDGET = 6

SHAPES: dict[str, dict[str, Any]] = {
    # Grouped queries, as in Llama 3.
    "llama3": {"num_key_value_heads": 2, "rope_theta": 500000.0},
    "vicuna": {"num_key_value_heads": 4, "rope_theta": 10000.0},
}

STYLES = {"llama3": "llama3", "vicuna": "v1"}


def write_checkpoint(folder: Path, shape: str, **overrides: Any) -> Path:
    """Save a native model with random weights. Views have 56 pixels, 16 global tokens, and 4 local ones a tile."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / f"tiny-{shape}")
    text = LlamaConfig(
        hidden_size=128,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        # The placeholder is no word of the language model, as in published checkpoints.
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPES[shape],
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
    )
    fields = {
        "vision_config": vision,
        "text_config": text,
        "separator_token_id": 11,
        "num_local_queries": 4,
        "query_attention_head_dim": 16,
        "max_local_tokens": BUDGET,
        **overrides,
    }
    config = SlimeConfig(**fields)
    processor = SlimeProcessor.from_config(config, tokenizer, STYLES[shape])
    torch.manual_seed(0)
    model = SlimeForConditionalGeneration(config).eval()
    with torch.no_grad():
        # Large enough that every part matters to the answer.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
