"""A recipe of a few thousand parameters and a few steps, and records with tiny images."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from tests.tiny_reader import byte_tokenizer

PAGES: dict[str, Any] = {
    "tiles": [2, 2],
    "page_scale": [0.9, 1.1],
    "fonts": "pillow",
    "questions": 3,
    "kinds": {"form": 1.0},
}

MINI: dict[str, Any] = {
    "name": "mini",
    "seed": 1,
    "model": {
        "tokenizer": "pages",
        "conversation": "pages",
        "config": {
            "vision_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 16, 32],
                "depths": [1, 1, 1],
                "layer_type": "basic",
                "hidden_act": "relu",
            },
            "text_config": {
                "model_type": "llama",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "tie_word_embeddings": True,
            },
            "view_size": 256,
            "patch_size": 16,
            "vision_feature_layer": -1,
            "num_local_queries": 64,
            "query_attention_head_dim": 16,
            "projector_vocabulary": "pages",
            "page_positions": True,
            "keep_position_ids": True,
            "selector_text": "question",
            "selector_temperature": 0.2,
        },
    },
    "stages": [
        {
            "name": "encoder",
            "trains": ["vision_tower", "local_compressor", "projector"],
            "page_training": {"objective": "read"},
            "data": {"pages": PAGES},
            "steps": 8,
            "batch_size": 1,
            "learning_rate": 1e-3,
        },
        {
            "name": "lm",
            "start": [],
            "trains": ["language_model", "projector_tables", "page_positions"],
            "config": {"views": "local"},
            "data": {"pages": PAGES},
            "steps": 8,
            "batch_size": 2,
            "micro_batch_size": 1,
            "learning_rate": 1e-3,
            "page_training": {
                "objective": "symbolic_tokens",
                "symbolic_tokens": {"local_side": 12},
                "selector_loss": 0.2,
                "context_loss": 0.2,
                "pointing_loss": 0.2,
                "copying_loss": 0.2,
            },
        },
        {
            "name": "both",
            "start": ["lm", "encoder"],
            "trains": ["vision_tower", "projector", "gate", "global_adapter", "local_compressor", "language_model"],
            "data": {"pages": PAGES},
            "steps": 8,
            "batch_size": 1,
            "learning_rate": 1e-3,
            "page_training": {
                "selector_loss": 0.2,
                "reading_loss": 0.3,
                "pointing_loss": 0.2,
                "copying_loss": 0.2,
            },
        },
    ],
}


def mini_recipe() -> dict[str, Any]:
    """The recipe as plain data, to change at will."""
    return copy.deepcopy(MINI)


def write_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    """Write a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def losses(stage_folder: Path, tag: str = "train/loss") -> dict[int, float]:
    """Loss (or what else has this tag) by step of all TensorBoard files of a stage, later files first."""
    found: dict[int, float] = {}
    for path in sorted((stage_folder / "runs").glob("*/events*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(path))
        events.Reload()
        if tag in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars(tag)}
    return found


def write_records(folder: Path, as_lines: bool = False) -> Path:
    """Three records: two with an image, one of text alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (70, 60), colour).save(folder / f"{name}.png")
    records: list[dict[str, Any]] = [
        {
            "id": colour,
            "image": f"{name}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nColour?"},
                {"from": "gpt", "value": colour},
            ],
        }
        for name, colour in (("a", "red"), ("b", "blue"))
    ]
    records.append({"id": "text", "conversations": [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "2"}]})
    path = folder / ("records.jsonl" if as_lines else "records.json")
    path.write_text("\n".join(map(json.dumps, records)) if as_lines else json.dumps(records))
    return path


def write_parts(folder: Path) -> tuple[Path, Path]:
    """A vision encoder and a language model with its tokenizer, as a recipe names them."""
    tokenizer = byte_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    text = LlamaConfig(
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
    torch.manual_seed(0)
    CLIPVisionModel(vision).save_pretrained(folder / "vision")
    # Every family of encoders has its own colours.
    (folder / "vision" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": 3 * [0.5], "image_std": 3 * [0.5]})
    )
    LlamaForCausalLM(text).save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    return folder / "vision", folder / "llm"


def records_recipe(folder: Path, **stage: Any) -> dict[str, Any]:
    """One stage on three records over two pretrained parts, in `folder`."""
    vision, llm = write_parts(folder)
    return {
        "name": "records",
        "model": {
            "vision": str(vision),
            "llm": str(llm),
            "conversation": "llama3",
            "config": {"num_local_queries": 1, "query_attention_head_dim": 8},
        },
        "stages": [
            {
                "name": "3",
                "trains": ["projector", "gate", "global_adapter", "local_compressor", "selector", "language_model"],
                "data": {"records": str(write_records(folder))},
                "steps": 30,
                "batch_size": 3,
                "learning_rate": 1e-2,
                "bf16": False,
                **stage,
            }
        ],
    }
