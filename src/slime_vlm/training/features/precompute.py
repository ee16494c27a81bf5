"""Encode all images of a stage that are not stored yet, before the stage trains on stored features."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from slime_vlm.data import MixtureOrder, RecordDataset
from slime_vlm.data.images import open_stored_image, stored_image_content
from slime_vlm.training.features.cache import FeatureStore, fingerprint_of, key_of
from slime_vlm.training.records import RecordCollator

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor
    from slime_vlm.training.recipe import Stage

_SECONDS_A_LINE = 60


@dataclass(frozen=True)
class _Unstored:
    """An image to encode: its key, (rows, columns) of its tiles and its views [v, 3, H, W]."""

    key: str
    grid: tuple[int, int]
    views: Tensor


class _ImagesToStore(Dataset):
    """Images of some records that are not stored yet.

    Records are chosen as in training, so a bad record is replaced by the same other record.
    """

    def __init__(self, collator: RecordCollator, positions: Sequence[int], store: FeatureStore, views: str) -> None:
        dataset = RecordDataset(*collator.dataset.sources, open_image=self._open)
        processor = collator.processor
        self.collator = RecordCollator(dataset, processor, limits=collator.limits)
        self.collator.options = collator.options
        self.indices, self.store, self.views, self.processor = positions, store, views, processor

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> list[_Unstored]:
        record = self.collator.usable(self.indices[index], [])
        return [] if record is None else [image for image in record.images if image is not None]

    def _open(self, value: Any, root: Path) -> _Unstored | None:
        key = key_of(stored_image_content(value, root))
        if key in self.store:
            return None
        cut = self.processor.image_processor(images=[open_stored_image(value, root)], return_tensors="pt")
        pixels, grid = cut["pixel_values"], tuple(int(side) for side in cut["image_grids"][0])
        chosen = {"global": pixels[:1], "local": pixels[1:], "both": pixels}[self.views]
        return _Unstored(key, (grid[0], grid[1]), chosen)


def open_store(
    model: SlimeForConditionalGeneration, processor: SlimeProcessor, stage: Stage, bf16: bool
) -> FeatureStore:
    """Return the store for a stage's encoder, its way of cutting views, and the views that it uses."""
    settings = stage.cache_features
    assert settings is not None
    fingerprint, about = fingerprint_of(model, processor, settings.dtype, bf16)
    dtype = getattr(torch, settings.dtype)
    return FeatureStore(Path(settings.folder).expanduser(), fingerprint, about, dtype, settings.max_gib * 2**30)


def store_features(
    model: SlimeForConditionalGeneration,
    collator: RecordCollator,
    order: MixtureOrder,
    store: FeatureStore,
    *,
    device: torch.device,
    bf16: bool,
    workers: int,
    console: Console,
) -> None:
    """Encode the images that are not stored yet. May be interrupted at any time, and continues where it stopped.

    Args:
        model: The model. It is put into evaluation mode, and its encoder is moved to the device.
        collator: Collator of the stage, with its records.
        order: The records that the stage uses.
        store: Receives the features.
        device: Device to encode on.
        bf16: Whether to compute in bfloat16, as the stage does.
        workers: Worker processes that open images.
        console: Shows the progress.

    Raises:
        ConfigError: The folder of the features would exceed its limit.
    """
    state = PartialState()
    mine = order.taken()[state.process_index :: state.num_processes]
    # In training mode, every process would have to encode as often as the others.
    model.eval()
    model.model.vision_tower.to(device)
    images = _ImagesToStore(collator, mine, store, model.config.views)
    # A generator of its own, so that the random numbers of the stage do not change.
    own = torch.Generator()
    loader = DataLoader(images, batch_size=None, num_workers=workers, collate_fn=_as_it_is, generator=own)
    stored = len(store)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for group in _groups(_shown(loader, len(mine), console), model.config.views_per_chunk):
            new = {image.key: image for image in group if image.key not in store}
            if not new:
                continue
            features = model.model.encode_views(torch.cat([image.views for image in new.values()]))
            parts = features.split([len(image.views) for image in new.values()])
            for image, part in zip(new.values(), parts, strict=True):
                store.add(image.key, image.grid, part)
    store.flush()
    state.wait_for_everyone()
    store.refresh()
    console.print(f"features: {len(store) - stored:,} images encoded, {len(store):,} in {store.folder}", soft_wrap=True)


def _shown(records: Any, total: int, console: Console) -> Iterator[list[_Unstored]]:
    """Yield the images of records, with a progress bar on a terminal, else with one line per minute."""
    if console.is_terminal:
        yield from track(records, "features", total=total, console=console, transient=True)
        return
    last = time.monotonic()
    for number, images in enumerate(records, start=1):
        yield images
        if time.monotonic() - last >= _SECONDS_A_LINE:
            last = time.monotonic()
            console.print(f"features: {number:,} of {total:,} records", highlight=False)


def _groups(records: Any, views: int) -> Iterator[list[_Unstored]]:
    """Yield images in groups with at least a number of views."""
    group: list[_Unstored] = []
    for images in records:
        group += images
        if sum(len(image.views) for image in group) >= views:
            yield group
            group = []
    if group:
        yield group


def _as_it_is(images: Any) -> Any:
    return images
