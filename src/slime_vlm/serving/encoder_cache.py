"""Encoded images, kept for the next question about them. What was used longest ago leaves first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from slime_vlm.inference.answering import EncodedImage


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the first tokens of a prompt, up to the global tokens of its first image.

    Attributes:
        input_ids: The tokens.
        layers: Keys and values [1, heads, S, width] of every layer.
    """

    input_ids: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors."""
        return sum(part.nbytes for layer in self.layers for part in layer)


@dataclass(eq=False)
class CachedImage:
    """An encoded image.

    Attributes:
        encoded: The image.
        size: (height, width) of the opened image in pixels.
        prefix: The prefix of the latest prompt that began with this image.
    """

    encoded: EncodedImage
    size: tuple[int, int]
    prefix: Prefix | None = None

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors."""
        tokens = self.encoded.tokens
        # The first question adds `VisionTokens.own_words`, which take as much as the linked ones.
        words = (tokens.words, tokens.words, tokens.contexts)
        parts = (tokens.gates, tokens.global_tokens, tokens.local_tokens, tokens.characters, *words)
        size = sum(part.nbytes for part in parts if part is not None)
        return size + (0 if self.prefix is None else self.prefix.num_bytes)


class EncoderCache:
    """Encoded images by the digest of their content and settings, within a number of bytes. Threads may share it.

    Args:
        max_bytes: Memory of all images together. 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._images: OrderedDict[str, tuple[CachedImage, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._images)

    def get(self, key: str) -> CachedImage | None:
        """Return an image, which then leaves last."""
        with self._lock:
            found = self._images.get(key)
            if found is None:
                return None
            self._images.move_to_end(key)
            return found[0]

    def put(self, key: str, image: CachedImage) -> None:
        """Keep an image, or count one anew that has grown."""
        size = image.num_bytes
        with self._lock:
            self.num_bytes += size - self._images.pop(key, (None, 0))[1]
            self._images[key] = (image, size)
            while self.num_bytes > self.max_bytes:
                self.num_bytes -= self._images.popitem(last=False)[1][1]
