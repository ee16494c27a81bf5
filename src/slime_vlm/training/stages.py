"""Freeze and unfreeze the parts of a model for a stage (paper section 3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from slime_vlm.errors import ConfigError
from slime_vlm.training.lora import LORA_MARK
from slime_vlm.training.parts import PART_PREFIXES, parameters_of

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.training.recipe import Stage


def apply_stage(model: SlimeForConditionalGeneration, stage: Stage) -> dict[str, float]:
    """Freeze all parameters, then unfreeze those that the stage trains.

    Args:
        model: The model, including the stage's low-rank adapters if it has any.
        stage: The stage, with its trained parts and learning rates.

    Returns:
        Learning rate of every trainable parameter by name.

    Raises:
        ConfigError: The stage names a part that this model does not have.
    """
    rates: dict[str, float] = {}
    for part in stage.trains:
        names = parameters_of(model, part)
        if part == "language_model" and stage.lora is not None:
            names = [name for name in names if LORA_MARK in name]
        # The cosine selector has no parameters. Recipes name it all the same, as the paper's stage 3 trains every part.
        if not names and part != "selector":
            raise ConfigError(f"stage '{stage.name}' trains '{part}', which this model does not have")
        for name in names:
            rates[name] = stage.part_learning_rates.get(part, stage.learning_rate)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in rates)
    return rates


def parts_by_rate(stage: Stage) -> dict[float, list[str]]:
    """Return the parts that a stage trains, by their learning rate."""
    parts: dict[float, list[str]] = {}
    for part in stage.trains:
        parts.setdefault(stage.part_learning_rates.get(part, stage.learning_rate), []).append(part)
    return parts


def frozen_modules(model: SlimeForConditionalGeneration, stage: Stage) -> list[str]:
    """Return the fully frozen children of the model, which stay in evaluation mode to keep their statistics fixed.

    A frozen language model under gradient checkpointing is left out, as layers checkpoint in training mode only.
    """
    frozen = [
        name for name, child in model.model.named_children() if not any(p.requires_grad for p in child.parameters())
    ]
    return [name for name in frozen if not (stage.gradient_checkpointing and name == "language_model")]


def trainable_table(model: SlimeForConditionalGeneration, stage: Stage) -> Table:
    """Return a table of all parts with their parameters, trainable parameters and learning rates."""
    table = Table("part", "parameters", "trainable", "learning rate", title=f"stage {stage.name}")
    for part in PART_PREFIXES:
        if part == "projector_tables":
            continue
        names = set(parameters_of(model, part))
        sizes = {n: (p.numel(), p.requires_grad) for n, p in model.named_parameters() if n in names}
        total = sum(count for count, _ in sizes.values())
        open_ = sum(count for count, trains in sizes.values() if trains)
        rate = stage.part_learning_rates.get(part, stage.learning_rate)
        table.add_row(part, f"{total:,}", f"{open_:,}" if open_ else "frozen", f"{rate:g}" if open_ else "")
    return table
