"""A LoRA on a SliME that was saved without its base: a folder in peft's layout, with config and processor.

adapter_config.json        settings, the modules that were trained whole, and the base: a folder, hub id or `nano`
adapter_model.safetensors  low-rank weights, and the whole modules
config.json and the processor's files, as in any native checkpoint

`slime train` writes all of them. peft and TRL write no config.json; config and processor are then those of the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from slime_vlm.checkpoints.hub import at_hand, resolve
from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.layouts import is_published
from slime_vlm.checkpoints.lora.weights import ADAPTER_CONFIG, LoraWeights, read_lora
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.checkpoints.tensor_files import StoredTensor, folder_tensors
from slime_vlm.errors import CheckpointError
from slime_vlm.model.configuration_slime import SlimeConfig


@dataclass(frozen=True)
class LoraFolder:
    """An opened LoRA and its base.

    Attributes:
        folder: Folder of the LoRA.
        base: Folder of the base.
        lora: Low-rank weights, and those that were trained whole.
        stored: Tensors of the base by native name.
    """

    folder: Path
    base: Path
    lora: LoraWeights
    stored: dict[str, StoredTensor]

    def merged(self, dtype: torch.dtype | None = None) -> dict[str, StoredTensor]:
        """List the tensors of the model with its low-rank weights merged.

        The sums are in `dtype`. None takes the types of the base.
        """
        return self.lora.merged_into(self.stored, dtype)

    def unmerged(self) -> dict[str, StoredTensor]:
        """List the tensors of the model without its low-rank weights, but with those that were trained whole."""
        return self.lora.replaced_in(self.stored)


def is_lora_folder(folder: Path) -> bool:
    """Whether a native folder holds a LoRA instead of a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def settings_folder(folder: Path, base: str | Path | None = None) -> Path:
    """Return the folder with the config and processor of a checkpoint: itself, or the base of a folder of peft alone.

    Args:
        folder: Folder of a checkpoint.
        base: Folder or hub id of the base. None takes the recorded one.

    Raises:
        CheckpointError: The base is missing, or of the published layout.
    """
    if not is_lora_folder(folder) or (folder / "config.json").is_file():
        return folder
    found = settings_folder(_base_folder(folder, read_lora(folder), base))
    if is_published(read_json(found / "config.json")):
        raise CheckpointError(
            f"{folder} has no config.json, and its base {found} is of the published layout; convert the base with "
            f"slime convert, and write the new folder into {ADAPTER_CONFIG} as base_model_name_or_path"
        )
    return found


def open_lora(folder: Path, base: str | Path | None = None) -> LoraFolder:
    """Open a LoRA on a SliME.

    Args:
        folder: Folder of the LoRA.
        base: Folder or hub id of the base. None takes the recorded one.

    Raises:
        CheckpointError: The LoRA is damaged, or the base is missing, damaged, or not the one it was trained on.
    """
    lora = read_lora(folder)
    found = _base_folder(folder, lora, base)
    opened = LoraFolder(folder, found, lora, _tensors(found))
    # Fails here if it does not fit the base, not when tensors are read.
    opened.merged()
    return opened


def _base_folder(folder: Path, lora: LoraWeights, base: str | Path | None) -> Path:
    if base is not None:
        return resolve(base)
    if lora.base is None:
        raise CheckpointError(f"{folder}: {ADAPTER_CONFIG} records no base; write it there as base_model_name_or_path")
    found = resolve(lora.base) if lora.base in SHIPPED else at_hand(lora.base)
    if found is None:
        raise CheckpointError(
            f"{folder} is a LoRA on '{lora.base}', which is neither a folder nor in the hub's cache; put it back, "
            f"write its new path into {ADAPTER_CONFIG} as base_model_name_or_path, or use slime merge with --base"
        )
    return found


def _tensors(base: Path) -> dict[str, StoredTensor]:
    fields = read_json(base / "config.json")
    if is_published(fields):
        from slime_vlm.checkpoints.published.reader import open_published

        return open_published(base).tensors
    if fields.get("model_type") != SlimeConfig.model_type:
        raise CheckpointError(
            f"{base} holds a model of type '{fields.get('model_type')}', expected the SliME that the LoRA was "
            "trained on"
        )
    # A base may be the LoRA of an earlier stage.
    return open_lora(base).merged() if is_lora_folder(base) else folder_tensors(base)
