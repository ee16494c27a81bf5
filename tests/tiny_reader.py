"""A tiny random model with a tokenizer of single bytes: everything `slime ask` needs, in memory or in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.conftest import tiny_config

SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Four special tokens, then one token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )


def tiny_reader(**overrides: Any) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Model and processor that fit each other; `overrides` are fields of the config."""
    tokenizer = byte_tokenizer()
    text_config = LlamaConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        vocab_size=len(tokenizer),
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config = tiny_config(text_config=text_config, **overrides)
    processor = SlimeProcessor.from_config(config, tokenizer, "llama3")
    torch.manual_seed(0)
    model = SlimeForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model, processor


def save_tiny_reader(folder: Path, **overrides: Any) -> Path:
    """Write a tiny reader as a native checkpoint; `overrides` are fields of its config."""
    model, processor = tiny_reader(**overrides)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
