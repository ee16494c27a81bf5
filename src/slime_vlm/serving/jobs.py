"""A request on its way through the scheduler, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slime_vlm.serving.encoder_cache import CachedImage


@dataclass(frozen=True)
class Views:
    """The views of a decoded image.

    Attributes:
        size: (height, width) of the image in pixels.
        pixels: uint8 [v, P, P, 3]: the global view and the tiles, as far as the model uses them.
        seconds: Time of decoding and scaling.
    """

    size: tuple[int, int]
    pixels: np.ndarray
    seconds: float


@dataclass(eq=False)
class JobImage:
    """An image of a request: `cached` when it is encoded, `views` before.

    Attributes:
        key: Digest of content and settings.
        max_tiles: Maximum number of tiles.
        global_only: Whether the model gets the global view alone (detail "low").
        views: The decoded image. None for one that is encoded.
        cached: The encoded image.
    """

    key: str
    max_tiles: int
    global_only: bool
    views: Views | None = None
    cached: CachedImage | None = None


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: the most probable one at temperature 0, else drawn from the top `top_p`."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens of a request. `text` includes separators; `cached` were not processed again."""

    text: int = 0
    global_: int = 0
    local_before: int = 0
    local: int = 0
    cached: int = 0
    new: int = 0

    @property
    def prompt(self) -> int:
        """Tokens of the prompt that the language model has seen."""
        return self.text + self.global_ + self.local


@dataclass(frozen=True)
class Started:
    """The first token is there."""

    usage: Usage
    images: list[dict[str, Any]]


@dataclass(frozen=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """The end of an answer: "stop" or "length"."""

    reason: str
    usage: Usage
    seconds: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """A request that cannot be answered, with the HTTP status of the refusal."""

    status: int
    message: str
    code: str | None = None


Event = Started | Text | Done | Failed


@dataclass(eq=False)
class Job:
    """A request.

    Attributes:
        messages: Messages for the chat template, images as blocks without source.
        images: The images in the order of their blocks.
        emit: Takes the events. The last one is `Done` or `Failed`.
        max_new_tokens: The longest answer. None takes what the server allows.
        stops: Texts that end the answer.
        sampling: How tokens are chosen.
        max_local_tokens: Budget of local tokens per image instead of the model's.
        selector_top_p: Share of probability to keep instead of the model's.
        deadline: When the request is given up, by `time.monotonic`.
        cancelled: Set from any thread when nobody waits for the answer any more.
    """

    messages: Sequence[dict[str, Any]]
    images: Sequence[JobImage]
    emit: Callable[[Event], None]
    max_new_tokens: int | None = None
    stops: Sequence[str] = ()
    sampling: Sampling = Sampling()
    max_local_tokens: int | None = None
    selector_top_p: float | None = None
    deadline: float = float("inf")
    cancelled: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    arrival: float = field(default_factory=time.perf_counter)
