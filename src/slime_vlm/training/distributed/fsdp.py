"""Models spread over processes by FSDP2: what is a unit of its own, and checkpoints in shards on any number of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

# Names that Accelerate gives to the parts of a checkpoint in shards.
_MODEL, _OPTIMIZER = "pytorch_model_fsdp_0", "optimizer_0"


def layer_classes(model: SlimeForConditionalGeneration) -> list[str]:
    """Classes of the language model's layers, each of which is gathered alone.

    Embeddings and head are units of their own, which Accelerate sees to. Everything else is gathered with the model
    itself. That costs a few hundred million weights, and no process waits for an image's layers that another one never
    runs.
    """
    layers = model.model.language_model
    present = {type(layer).__name__ for layer in layers.modules()}
    return sorted(present & set(layers._no_split_modules or ()))


def keep_embeddings(model: SlimeForConditionalGeneration) -> None:
    """Let a step gather the embeddings once, however often it looks something up in them.

    Accelerate makes them a unit of their own, and a step looks up the selector's text, the separator and the row one
    after another.
    """
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, FSDPModule):
        embeddings.set_reshard_after_forward(False)


def is_sharded(checkpoint: Path) -> bool:
    """Whether a checkpoint was written in shards."""
    return (checkpoint / _MODEL).is_dir()


def load_shards(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint in shards into a model that is whole on every process, and into its optimizer.

    Args:
        checkpoint: its folder.
        model: the model, not wrapped.
        optimizer: its optimizer, of the same parameter groups as when it was written.
    """
    import torch.distributed.checkpoint as shards
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    weights, moments = get_state_dict(model, optimizer)
    # Every process reads everything, so that none waits for another.
    shards.load({"model": weights}, checkpoint_id=checkpoint / _MODEL, no_dist=True)
    shards.load({"optimizer": moments}, checkpoint_id=checkpoint / _OPTIMIZER, no_dist=True)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
