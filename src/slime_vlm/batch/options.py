"""What a job is to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slime_vlm.media import OpenedInput
    from slime_vlm.serving.settings import Settings


@dataclass(frozen=True)
class JobOptions:
    """What to run.

    Attributes:
        records: What `data.open_source` opens.
        out: Folder of the answers.
        model: `nano`, `pages`, a folder or a hub id.
        limits: Settings of the scheduler.
        open_image: Opens a file or an address.
        images: Folder or archive of the images. None takes the folder of the records.
        device: Device of the model.
        fast: See `load`.
        overrides: Fields of the model's config to change.
        settings: What else changes answers, by the name that a message uses. None is the default.
        ray: Address of a Ray cluster, `auto` for the one of this machine, `local` for a new one on this machine alone.
            None answers in this process.
        ray_workers: How many workers the cluster runs. None takes one for each GPU, or one for each machine.
    """

    records: str
    out: Path
    model: str
    limits: Settings
    open_image: Callable[[str], OpenedInput]
    images: Path | None = None
    device: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    fast: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    ray: str | None = None
    ray_workers: int | None = None
