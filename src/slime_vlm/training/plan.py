"""What a run would do, without doing it: resolved recipe, what trains, memory (`slime train --dry-run`)."""

from __future__ import annotations

from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.training.lora import add_lora, bytes_saved
from slime_vlm.training.models import recipe_config
from slime_vlm.training.recipe import Recipe, Stage, recipe_dict
from slime_vlm.training.stages import apply_stage, trainable_table

GIB = 2**30


def sequence_length(config: SlimeConfig, limit: int | None, text_tokens: int = 200) -> int:
    """Longest sequence of a stage: the image at the most tiles, nothing dropped, with some text."""
    length = config.token_layout.num_image_tokens(1, config.max_tiles) + text_tokens
    return min(length, limit) if limit else length


def memory_estimate(model: SlimeForConditionalGeneration, stage: Stage, weight_bytes: int = 4) -> dict[str, float]:
    """Bytes that one process needs in a stage, by purpose; a plan, not a measurement.

    Weights count `weight_bytes` each, beside adapters what `lora.base_weights` says; trainable ones 4 more for the
    gradient, 8 for AdamW's moments and, with bf16, 2 for the copy that a step computes with. Activations: per token and
    layer 34 hidden widths at 2 bytes (about what a Llama layer keeps for its backward pass), or one width with gradient
    checkpointing and one layer in full; logits twice in float32. Activations of a vision encoder that trains are not
    counted.

    Args:
        model: the model after `apply_stage`; on the meta device will do.
        stage: batch size, sequence limit, gradient checkpointing.
        weight_bytes: bytes of one weight.
    """
    text: Any = model.config.text_config
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    tokens = sequence_length(model.config, stage.max_sequence_length) * (stage.micro_batch_size or stage.batch_size)
    per_layer = 34 * text.hidden_size * 2
    layers = text.num_hidden_layers
    kept = layers * text.hidden_size * 2 + per_layer if stage.gradient_checkpointing else layers * per_layer
    return {
        "weights": float(total * weight_bytes) - (bytes_saved(model, stage.lora) if stage.lora else 0.0),
        "gradients": float(trainable * 4),
        "optimizer": float(trainable * 8),
        "bf16 copies": float(trainable * 2 if stage.bf16 else 0),
        "activations": float(tokens * kept),
        "logits": float(tokens * text.vocab_size * 4 * 2),
    }


def print_plan(recipe: Recipe, stages: list[Stage]) -> None:
    """Print the resolved recipe, and for every stage the trainable parts and a memory estimate."""
    console = Console()
    resolved = yaml.safe_dump(recipe_dict(recipe), sort_keys=False, allow_unicode=True)
    console.print(resolved, markup=False, highlight=False, soft_wrap=True)
    for stage in stages:
        config = recipe_config(recipe, stage.config)
        with torch.device("meta"):
            model = SlimeForConditionalGeneration(config)
            if stage.lora is not None:
                add_lora(model, stage.lora)
        apply_stage(model, stage)
        console.print(trainable_table(model, stage))
        memory = Table("purpose", "GiB", title=f"memory of one process, stage {stage.name} (estimate)")
        parts = memory_estimate(model, stage)
        for name, size in parts.items():
            memory.add_row(name, f"{size / GIB:.2f}")
        memory.add_row("sum", f"{sum(parts.values()) / GIB:.2f}")
        console.print(memory)
