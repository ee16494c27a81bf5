"""Every vision encoder and language model of docs/models.md, in small: configs, folders in hub format, chat formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    ResNetConfig,
    Siglip2VisionConfig,
    SiglipConfig,
    SiglipVisionConfig,
)

from slime_vlm.model.configuration_recogniser import RecogniserConfig

_VIT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
_DINO = {name: value for name, value in _VIT.items() if name != "intermediate_size"} | {"mlp_ratio": 2}
_NAFLEX = {name: value for name, value in _VIT.items() if name != "image_size"} | {"num_patches": 16}

# 16 features a view each: what stands before them is left out, and three of them have another way to say so.
TOWERS: dict[str, tuple[PretrainedConfig, dict[str, Any]]] = {
    "clip": (CLIPVisionConfig(**_VIT, projection_dim=8), {}),
    "siglip": (SiglipVisionConfig(**_VIT, vision_use_head=False), {}),
    "siglip2": (Siglip2VisionConfig(**_NAFLEX, vision_use_head=False), {}),
    "dinov2": (Dinov2Config(**_DINO), {}),
    "dinov2-registers": (Dinov2WithRegistersConfig(**_DINO, num_register_tokens=4), {}),
    "resnet": (
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
        {"view_size": 32, "patch_size": 8, "vision_feature_layer": -1},
    ),
    "recogniser": (
        RecogniserConfig(
            stem_width=8,
            stage_widths=[8, 8],
            stage_depths=[1, 1],
            gated_blocks=[[0], []],
            hidden_size=16,
            patch_size=8,
            image_size=32,
        ),
        {"vision_feature_layer": -1},
    ),
}

_TEXT: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "vocab_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_WINDOW = {"sliding_window": 8}
_GEMMA = {**_TEXT, "num_key_value_heads": 1, "head_dim": 8}

# Windows of 8 are far shorter than the rows of the tests, so what a window leaves out counts.
LANGUAGE_MODELS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**_TEXT),
    "smollm2": LlamaConfig(**{**_TEXT, "num_key_value_heads": 1}, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**_TEXT),
    "qwen2.5": Qwen2Config(**_TEXT, tie_word_embeddings=True, use_sliding_window=True, max_window_layers=1, **_WINDOW),
    "qwen3": Qwen3Config(**_TEXT, head_dim=16, tie_word_embeddings=True),
    "mistral": MistralConfig(**_TEXT, **_WINDOW),
    "gemma": GemmaConfig(**_GEMMA),
    "gemma2": Gemma2Config(**_GEMMA, final_logit_softcapping=5.0, attn_logit_softcapping=5.0, **_WINDOW),
    "gemma3": Gemma3TextConfig(**_GEMMA, layer_types=["sliding_attention", "full_attention"], **_WINDOW),
}

STATISTICS = {
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "siglip": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "siglip2": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "dinov2": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "dinov2-registers": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}

# The formats of the families in short templates of our own; each keeps what makes its family different.
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + '\\n' + message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nBe kind."
    "<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] + '\\n' + message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QWEN3 = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{{ message['content'].lstrip('\\n') }}"
    "{% else %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]"
    "{% elif message['role'] == 'assistant' %} {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
_GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}<start_of_image>{% else %}"
    "{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

# name: special tokens (bos, eos, pad first), whether the tokenizer adds bos by itself, template
CHATS: dict[str, tuple[dict[str, str | None], tuple[str, ...], bool, str | None]] = {
    "vicuna": ({"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": None}, (), True, None),
    "llama3": (
        {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "pad": None},
        ("<|start_header_id|>", "<|end_header_id|>"),
        True,
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}",
    ),
    "qwen2": ({"bos": None, "eos": "<|im_end|>", "pad": "<|endoftext|>"}, ("<|im_start|>",), False, _CHATML),
    "qwen3": ({"bos": None, "eos": "<|im_end|>", "pad": "<|endoftext|>"}, ("<|im_start|>",), False, _QWEN3),
    "smollm2": ({"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>"}, (), False, _SMOLLM2),
    "mistral": ({"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": None}, (), True, _MISTRAL),
    "gemma": (
        {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>"},
        ("<start_of_turn>", "<end_of_turn>"),
        True,
        _GEMMA_CHAT,
    ),
    "base": ({"bos": None, "eos": "<|endoftext|>", "pad": None}, (), False, None),
}

PROMPTS = {
    "qwen2": "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "smollm2": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n<image>\nWhat?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "mistral": "<s>[INST] <image>\nWhat? [/INST]",
    "gemma": "<bos><start_of_turn>user\n<image>\nWhat?<end_of_turn>\n<start_of_turn>model\n",
}
"""What each template family writes for an image and a question, by hand."""

LABELS = {
    "qwen2": "Red.<|im_end|>Blue.<|im_end|>",
    "qwen3": "Red.<|im_end|>Blue.<|im_end|>",
    "smollm2": "Red.<|im_end|>Blue.<|im_end|>",
    "mistral": " Red.</s> Blue.</s>",
    "gemma": "Red.<end_of_turn>Blue.<end_of_turn>",
}
"""What is supervised of two answers, by hand."""


def chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes with the special tokens and the template of a family."""
    roles, marks, adds_bos, template = CHATS[name]
    special = list(dict.fromkeys([token for token in roles.values() if token] + list(marks)))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={token: index for index, token in enumerate([*special, *alphabet])}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    if adds_bos:
        bos = roles["bos"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, special.index(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=template,
        **{f"{role}_token": token for role, token in roles.items() if token},
    )


def scatter(model: torch.nn.Module, seed: int = 0) -> None:
    """Draw weights large enough that every part matters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)


def write_tower(folder: Path, name: str, *, two_towers: bool = False) -> Path:
    """A folder in hub format: the vision encoder alone, or with its text tower as CLIP and SigLIP are published."""
    config = TOWERS[name][0]
    if two_towers:
        text = {**_TEXT, "max_position_embeddings": 8, "projection_size": 16}
        config = {"clip": CLIPConfig, "siglip": SiglipConfig}[name](
            vision_config=config.to_dict(), text_config=text, projection_dim=8
        )
    model = AutoModel.from_config(config)
    scatter(model)
    model.save_pretrained(folder)
    mean, std = STATISTICS[name]
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    return folder


def write_language_model(folder: Path, name: str, chat: str) -> Path:
    """A folder in hub format: a language model and its tokenizer."""
    tokenizer = chat_tokenizer(chat)
    config = type(LANGUAGE_MODELS[name])(
        **{**LANGUAGE_MODELS[name].to_diff_dict(), "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    )
    model = AutoModelForCausalLM.from_config(config)
    scatter(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
