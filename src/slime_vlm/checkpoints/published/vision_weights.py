"""Vision weights of a published checkpoint, and of the public encoder that it names.

Deviation: the published loader ignores the vision weights in a checkpoint and takes the public ones. Here those of the
checkpoint are used, and a difference is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from slime_vlm.checkpoints.hub import at_hand, resolve
from slime_vlm.checkpoints.tensor_files import StoredTensor, folder_tensors, has_weights
from slime_vlm.errors import CheckpointError

PREFIX = "model.vision_tower."
"""Prefix of the native names of all vision weights."""

_TOWER_PREFIXES = ("vision_model.", "")


def tower_name(published: Mapping[str, object]) -> str:
    """Return the folder or hub id of the vision encoder in a published config. Empty if there is none."""
    name = published.get("mm_vision_tower") or published.get("vision_tower")
    return name if isinstance(name, str) else ""


def public_tower(folder: Path, name: str, *, download: bool = False) -> dict[str, StoredTensor] | None:
    """List the weights of a public encoder under their native names. None if they are not on this machine.

    Args:
        folder: Folder of the checkpoint. The encoder may be a folder in it.
        name: Folder or hub id of the encoder.
        download: Whether to download it from the hub if necessary.

    Raises:
        CheckpointError: They are damaged, or the download failed.
    """
    if not name:
        return None
    found = folder / name if (folder / name).is_dir() else at_hand(name)
    if found is None and download:
        found = resolve(name)
    if found is None or not has_weights(found):
        return None
    tensors = folder_tensors(found)
    # Files of a whole CLIP also hold the text encoder.
    prefix = next(prefix for prefix in _TOWER_PREFIXES if any(key.startswith(prefix) for key in tensors))
    return {PREFIX + key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def compare_with_public(tensors: Mapping[str, StoredTensor], folder: Path, name: str) -> str:
    """Report in one line whether the vision weights of a checkpoint differ from those of the public encoder.

    They are compared in the type of the checkpoint, so that rounding does not count as a difference.
    """
    ours = {key: value for key, value in tensors.items() if key.startswith(PREFIX)}
    try:
        theirs = public_tower(folder, name)
    except CheckpointError as error:
        return f"vision weights: the checkpoint's; not compared with {name} ({error})"
    if theirs is None:
        return f"vision weights: the checkpoint's; {name} is not on this machine to compare them with"
    differing, largest = 0, 0.0
    for key, value in ours.items():
        other = theirs.get(key)
        if other is None or other.shape != value.shape:
            return f"vision weights: the checkpoint's; {name} is another model ({key} is not in it or of another shape)"
        mine = value.load()
        public = other.load(mine.dtype)
        if not torch.equal(mine, public):
            differing += 1
            largest = max(largest, float((mine.float() - public.float()).abs().max()))
    if not differing:
        return f"vision weights: the checkpoint's, equal to those of {name}"
    return (
        f"vision weights: the checkpoint's, which differ from {name} in {differing} of {len(ours)} tensors "
        f"(by up to {largest:.2g}); the published loader would take {name}"
    )
