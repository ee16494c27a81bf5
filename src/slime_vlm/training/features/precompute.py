"""Encoding every image of a stage that is not stored yet, before the stage trains on stored features."""

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
    """An image that has to be encoded: its key, (rows, columns) and views [v, 3, H, W]."""

    key: str
    grid: tuple[int, int]
    views: Tensor


class _ImagesToStore(Dataset):
    """Images of the records that a process takes care of, as far as they are not stored.

    Records are chosen as the training chooses them, so a bad one counts by what takes its place.
    """

    def __init__(self, collator: RecordCollator, positions: Sequence[int], store: FeatureStore, views: str) -> None:
        dataset = RecordDataset(*collator.dataset.sources, open_image=self._open)
        processor = collator.processor
        self.collator = RecordCollator(dataset, processor, limits=collator.limits)
        self.collator.options = collator.options
        self.indices, self.store, self.views, self.processor = positions, store, views, processor

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> list[_Unstored]:
        record = self.collator.usable(self.indices[place], [])
        return [] if record is None else [image for image in record["images"] if image is not None]

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
    """The store of a stage: for its encoder, its way of cutting views, and the views that it looks at."""
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
    """Encode what is not stored yet; may be stopped at any time and goes on where it was.

    Args:
        model: is put into evaluation mode, and its encoder moved to the device.
        collator: of the stage, with its records.
        order: which of them the stage takes.
        store: takes the features.
        device: to encode on.
        bf16: whether to compute in bfloat16, as the stage does.
        workers: processes that open images.
        console: shows the progress.

    Raises:
        ConfigError: there is no room for the features.
    """
    state = PartialState()
    mine = order.taken()[state.process_index :: state.num_processes]
    # In training every process would have to encode as often as the others.
    model.eval()
    model.model.vision_tower.to(device)
    images = _ImagesToStore(collator, mine, store, model.config.views)
    # Its own generator: the random numbers of the stage stay what they are.
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
    """Hand on the images of records, with a bar on a terminal, else with a line a minute."""
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
    """Images of so many records that they have at least some number of views together."""
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
