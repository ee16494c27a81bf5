"""The cache of image tokens in a vLLM worker."""

from __future__ import annotations

import torch

from slime_vlm.engines.vllm.token_cache import TokenCache
from slime_vlm.model.outputs import VisionTokens


def tokens(value: float) -> VisionTokens:
    """2 global and 4 local tokens of width 8: 6 x 8 x 4 bytes = 192."""
    return VisionTokens((1, 1), torch.ones(2, 2), torch.full((2, 8), value), torch.full((4, 8), value))


def test_what_was_used_longest_ago_leaves_first() -> None:
    cache = TokenCache(400)
    cache.put(b"a", tokens(1.0))
    cache.put(b"b", tokens(2.0))
    assert cache.num_bytes == 384
    found = cache.get(b"a")
    assert found is not None
    assert found.gates is None
    assert found.local_tokens is not None
    assert torch.equal(found.local_tokens, torch.ones(4, 8))
    cache.put(b"c", tokens(3.0))
    assert cache.get(b"b") is None
    assert [cache.get(key) is not None for key in (b"a", b"c")] == [True, True]
    assert (len(cache), cache.num_bytes) == (2, 384)


def test_an_image_that_is_put_again_counts_once() -> None:
    cache = TokenCache(400)
    for _ in range(3):
        cache.put(b"a", tokens(1.0))
    assert (len(cache), cache.num_bytes) == (1, 192)


def test_without_room_nothing_is_kept() -> None:
    cache = TokenCache(0)
    cache.put(b"a", tokens(1.0))
    assert cache.get(b"a") is None
    assert (len(cache), cache.num_bytes) == (0, 0)
