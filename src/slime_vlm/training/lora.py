"""Low-rank adapters on the language model in place of training all of it (variant of stage 3, paper section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from slime_vlm.errors import ConfigError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.training.recipe import LoraSettings

LORA_MARK = ".lora_"
"""Part of the name of every low-rank weight, and of no other."""


def add_lora(model: SlimeForConditionalGeneration, settings: LoraSettings) -> LoraModel:
    """Put adapters beside every linear layer of the language model, in place.

    Args:
        model: the model; its own parts (projector, adapters, compressor) and the head stay as they are.
        settings: rank, scale and dropout.

    Returns:
        What `merge_lora` needs at the end of the stage.

    Raises:
        ConfigError: the language model has no linear layer.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    language_model = model.model.language_model
    linear = {name.rsplit(".", 1)[-1] for name, layer in language_model.named_modules() if isinstance(layer, nn.Linear)}
    if not linear:
        raise ConfigError(f"lora needs linear layers, the language model {type(language_model).__name__} has none")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(linear),
        bias="none",
    )
    return LoraModel(language_model, config, "default")


def merge_lora(lora: LoraModel) -> None:
    """Add the adapters to the weights beside them and remove them, in place: the model is an ordinary one again."""
    lora.merge_and_unload()
