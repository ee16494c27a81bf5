"""Models sharded over processes by FSDP2: its gathered units, and sharded checkpoints on any number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

# Names that Accelerate gives to the parts of a sharded checkpoint.
_MODEL, _OPTIMIZER = "pytorch_model_fsdp_0", "optimizer_0"


def layer_classes(model: SlimeForConditionalGeneration) -> list[str]:
    """Return the classes of the language model's layers, each of which is gathered alone.

    Accelerate makes embeddings and head units of their own. Everything else is gathered with the model itself. That
    costs the memory of a few hundred million weights, but no process waits for layers of the vision part that another
    process does not run.
    """
    layers = model.model.language_model
    present = {type(layer).__name__ for layer in layers.modules()}
    return sorted(present & set(layers._no_split_modules or ()))


def keep_embeddings(model: SlimeForConditionalGeneration) -> None:
    """Let a step gather the embeddings only once.

    Accelerate makes them a unit of their own, and a step looks up the selector's text, the separator and the row one
    after another.
    """
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, FSDPModule):
        embeddings.set_reshard_after_forward(False)


def is_sharded(checkpoint: Path) -> bool:
    """Return whether a checkpoint is sharded."""
    return (checkpoint / _MODEL).is_dir()


def load_shards(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load a sharded checkpoint into a model that is whole on every process, and into its optimizer.

    Args:
        checkpoint: Folder of the checkpoint.
        model: The unwrapped model.
        optimizer: Its optimizer, with the parameter groups of the run that wrote the checkpoint.
    """
    import torch.distributed.checkpoint as shards
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    weights, moments = get_state_dict(model, optimizer)
    # Every process reads the whole checkpoint, so that no process waits for another.
    shards.load({"model": weights}, checkpoint_id=checkpoint / _MODEL, no_dist=True)
    shards.load({"optimizer": moments}, checkpoint_id=checkpoint / _OPTIMIZER, no_dist=True)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
