"""Features of a frozen vision encoder on disk, so that every image is encoded only once (stages 1a, 1b and 2).

FOLDER/FINGERPRINT/settings.json       the values behind the fingerprint
FOLDER/FINGERPRINT/*.safetensors       features by image, a few hundred MiB a file

The key of an image is a hash of its file, the fingerprint of an encoder a hash of its weights and settings. So changed
images and encoders get new names, and no stale features are read. Files are renamed into place when they are complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from slime_vlm.data.images import open_stored_image, stored_image_content
from slime_vlm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

SHARD_BYTES = 256 << 20
_FORMAT = 1
_OPEN_FILES = 64


@dataclass(frozen=True)
class StoredImage:
    """The features of an image: (rows, columns) of its tiles, and [1 + T, N, C], or only those of the views in use."""

    grid: tuple[int, int]
    features: Tensor


class FeatureStore:
    """Stored features of one encoder with one way of cutting views.

    Args:
        folder: Folder of all stored features.
        fingerprint: Fingerprint of encoder and settings, see `fingerprint_of`.
        settings: The values behind the fingerprint, for people to read.
        dtype: Type that features are stored in.
        max_bytes: Most bytes in `folder`.
    """

    def __init__(
        self, folder: Path, fingerprint: str, settings: dict[str, Any], dtype: torch.dtype, max_bytes: float
    ) -> None:
        self.top, self.folder, self.dtype, self.max_bytes = folder, folder / fingerprint, dtype, max_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "settings.json"
        if not about.is_file():
            about.write_text(json.dumps(settings, indent=1, default=str), encoding="utf-8")
        self._entries: dict[str, tuple[str, tuple[int, int]]] = {}
        self._seen: set[str] = set()
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._waiting: dict[str, tuple[tuple[int, int], Tensor]] = {}
        self._waiting_bytes = 0
        self.refresh()

    def __len__(self) -> int:
        """Return the number of stored images."""
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries or key in self._waiting

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open files, since every process opens its own."""
        return {**self.__dict__, "_open": OrderedDict(), "_waiting": {}, "_waiting_bytes": 0}

    def refresh(self) -> None:
        """Find files that this or another process has written since the last call."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._seen:
                continue
            try:
                with safe_open(path, framework="pt") as file:
                    names = list(file.keys())
            except (SafetensorError, OSError):
                # The file is damaged. Its features are computed again.
                continue
            self._seen.add(path.name)
            for name in names:
                key, rows, cols = name.split("_")
                self._entries[key] = path.name, (int(rows), int(cols))

    def get(self, key: str) -> StoredImage | None:
        """Return the features of an image; None if they are not stored."""
        found = self._entries.get(key)
        if found is None:
            return None
        name, grid = found
        if name not in self._open:
            self._open[name] = safe_open(self.folder / name, framework="pt")
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return StoredImage(grid, self._open[name].get_tensor(_name(key, grid)))

    def open_image(self, value: Any, root: Path) -> StoredImage:
        """Return the features of an image, in place of `data.images.open_stored_image`.

        Raises:
            DataError: The image is missing or damaged, or has changed since the features were stored.
        """
        found = self.get(key_of(stored_image_content(value, root)))
        if found is None:
            open_stored_image(value, root)
            raise DataError("the image has changed since its features were stored; --resume stores them again")
        return found

    def add(self, key: str, grid: tuple[int, int], features: Tensor) -> None:
        """Add the features [v, N, C] of an image. They are written together with those of other images.

        Raises:
            ConfigError: The folder would exceed its limit.
        """
        kept = features.detach().to("cpu", self.dtype).contiguous()
        self._waiting[key] = grid, kept
        self._waiting_bytes += kept.nbytes
        if self._waiting_bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write all features that were added.

        Raises:
            ConfigError: The folder would exceed its limit.
        """
        if not self._waiting:
            return
        used = sum(path.stat().st_size for path in self.top.rglob("*.safetensors"))
        if used + self._waiting_bytes > self.max_bytes:
            raise ConfigError(
                f"{self.top} holds {used / 2**30:.3g} GiB of features and cache_features.max_gib is "
                f"{self.max_bytes / 2**30:.3g}: raise it, delete fingerprints in that folder that are not needed, or "
                "leave cache_features out"
            )
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        part = path.with_suffix(".part")
        save_file({_name(key, grid): features for key, (grid, features) in self._waiting.items()}, part)
        os.replace(part, path)
        self._waiting, self._waiting_bytes = {}, 0
        self.refresh()


def key_of(content: bytes) -> str:
    """Return the key of an image: a hash of its file."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _name(key: str, grid: tuple[int, int]) -> str:
    return f"{key}_{grid[0]}_{grid[1]}"


def fingerprint_of(
    model: SlimeForConditionalGeneration, processor: SlimeProcessor, dtype: str, bf16: bool
) -> tuple[str, dict[str, Any]]:
    """Return a hash of everything that features depend on beside the image, and the hashed values.

    Args:
        model: Gives the encoder and the layer that features come from.
        processor: Gives the way of cutting and normalising views.
        dtype: Type of the stored features.
        bf16: Whether the encoder computes in bfloat16.
    """
    config, tower = model.config, model.model.vision_tower
    weights = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tower.state_dict().items()):
        weights.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        weights.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    settings = {
        "format": _FORMAT,
        "weights": weights.hexdigest(),
        "vision_config": config.vision_config.to_dict(),
        "vision_feature_layer": config.vision_feature_layer,
        "num_global_tokens": config.num_features,
        "views": config.views,
        "image_processor": processor.image_processor.to_dict(),
        "dtype": dtype,
        "computed_in": "bfloat16" if bf16 else "float32",
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest(), settings


def pixel_values_of(images: list[StoredImage], views: str) -> dict[str, Tensor]:
    """Return the features [V, N, C] that replace the pixels of a batch, and `image_grids` [I, 2].

    Args:
        images: Images of the batch.
        views: Config `views`. With "local", the global views, which the model ignores, are zeros.
    """
    parts = []
    for image in images:
        if views == "local":
            parts.append(image.features.new_zeros(1, *image.features.shape[1:]))
        parts.append(image.features)
    return {"pixel_values": torch.cat(parts), "image_grids": torch.tensor([image.grid for image in images])}
