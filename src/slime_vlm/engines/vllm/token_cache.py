"""Tokens of images before selection, kept for the next question about them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from slime_vlm.model.outputs import VisionTokens


class TokenCache:
    """Tokens of images by the digest of their views, within a number of bytes of the computer's own memory.

    vLLM counts the memory of a GPU before it serves, so nothing is kept there. What was used longest ago leaves first.

    Args:
        max_bytes: Memory of all images together. 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._images: OrderedDict[bytes, tuple[VisionTokens, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._images)

    def get(self, digest: bytes) -> VisionTokens | None:
        """Return the tokens of an image, which then leaves last."""
        if digest not in self._images:
            return None
        self._images.move_to_end(digest)
        return self._images[digest][0]

    def put(self, digest: bytes, tokens: VisionTokens) -> None:
        """Keep a copy of the tokens of an image. Its gates are left out."""
        kept = replace(tokens, gates=None).to("cpu")
        size = sum(part.nbytes for part in (kept.global_tokens, kept.local_tokens) if part is not None)
        self.num_bytes += size - self._images.pop(digest, (None, 0))[1]
        self._images[digest] = (kept, size)
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= self._images.popitem(last=False)[1][1]
