"""A key-value cache that grows in place: new tokens are written behind the old ones, which stay where they are.

The dynamic cache of transformers concatenates, so that every token copies the keys and values of all tokens before it.
Here tensors have room for more tokens than they hold. When it is used up, they move into a larger one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer

# New room for an eighth of the tokens, and for 64 at least. Moving then costs a token eight copied ones at most.
_SHARE, _LEAST = 8, 64

_Pair: TypeAlias = tuple[Tensor, Tensor]


def in_larger_room(held: Tensor, rows: int, length: int, fill: float | None = None) -> Tensor:
    """Return a tensor [rows, heads, length, width] with `held` [r, heads, s, width] at its beginning.

    Args:
        held: What to copy.
        rows: Number of rows, r at least.
        length: Number of tokens, s at least.
        fill: Value of the rest. None leaves it uninitialised, for layers that never show it.
    """
    shape = (rows, held.shape[1], length, held.shape[3])
    room = held.new_empty(shape) if fill is None else held.new_full(shape, fill)
    room[: held.shape[0], :, : held.shape[2]] = held
    return room


class GrowingLayer(DynamicLayer):
    """A layer of a dynamic cache that grows in place.

    `keys` and `values` are slices of larger tensors. They may be replaced, as methods of the base class do: what is no
    slice of the layer's own tensors is copied before the layer writes. So several caches may start from the same
    tensors. A slice that was taken before `crop` is overwritten by the tokens that follow.

    Gradients need every tensor as it was, so with gradients the layer concatenates, and so it does in compiled code.

    Args:
        spare: Tensors that all layers of a cache share. Beams are reordered into them, and leave theirs behind.
    """

    def __init__(self, spare: list[_Pair] | None = None) -> None:
        super().__init__()
        self._spare: list[_Pair] = [] if spare is None else spare
        self._room: _Pair | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> _Pair:
        """Store new keys and values [rows, heads, n, width], and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = (key_states, value_states)
        held = _pair(part if part.numel() else first[:, :, :0] for part, first in zip(self._held(), new, strict=True))
        if torch.compiler.is_compiling() or not all(map(_can_be_written, held, new)):
            self._room = None
            found: _Pair = super().update(key_states, value_states, *args, **kwargs)
            return found
        start = held[0].shape[2]
        length = start + key_states.shape[2]
        if not self._is_in_room() or length > self._rooms()[0].shape[2]:
            capacity = length + max(_LEAST, length // _SHARE)
            self._room = _pair(in_larger_room(part, part.shape[0], capacity) for part in held)
        for room, part in zip(self._rooms(), new, strict=True):
            room[:, :, start:length] = part
        self._look(length)
        return self._held()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows for beam search, with a single copy."""
        if not self._is_in_room() or len(beam_idx) != len(self.keys) or torch.compiler.is_compiling():
            super().reorder_cache(beam_idx)
            return
        beam_idx = beam_idx.to(self.keys.device)
        length, old = self.keys.shape[2], self._rooms()
        spare = self._spare[0] if self._spare else old
        if spare is old or not all(map(_alike, spare, old)):
            spare = _pair(map(torch.empty_like, old))
        for source, target in zip(old, spare, strict=True):
            torch.index_select(source[:, :, :length], 0, beam_idx, out=target[:, :, :length])
        self._room = spare
        self._spare[:] = [old]
        self._look(length)

    def reset(self) -> None:
        """Forget all tokens."""
        self._room = None
        super().reset()

    def __getstate__(self) -> dict[str, Any]:
        # Without the room: a slice would take all of it along.
        state = {**self.__dict__, "_room": None, "_spare": []}
        if self._is_in_room():
            state |= {"keys": self.keys.clone(), "values": self.values.clone()}
        return state

    def _held(self) -> _Pair:
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def _rooms(self) -> _Pair:
        assert self._room is not None
        return self._room

    def _look(self, length: int) -> None:
        self.keys, self.values = (room[:, :, :length] for room in self._rooms())

    def _is_in_room(self) -> bool:
        """Whether keys and values are the beginnings of the layer's own tensors."""
        return self._room is not None and all(map(_begins, self._held(), self._room))


def growing_cache(config: PretrainedConfig | None = None) -> DynamicCache:
    """Make an empty cache that grows in place. See `grow_in_place`."""
    cache = DynamicCache(config=config)
    grow_in_place(cache)
    return cache


def grow_in_place(cache: DynamicCache) -> None:
    """Let an empty dynamic cache grow in place. Layers of other kinds, such as sliding windows, stay as they are."""
    spare: list[_Pair] = []
    cache.layers = [GrowingLayer(spare) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = partial(GrowingLayer, spare)


def cache_after(held: Iterable[_Pair]) -> DynamicCache:
    """Make a cache that goes on behind the keys and values of every layer, which are read and never written."""
    cache, spare = DynamicCache(), []  # type: ignore[var-annotated]
    cache.layer_class_to_replicate = partial(GrowingLayer, spare)
    for keys, values in held:
        layer = GrowingLayer(spare)
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _pair(tensors: Any) -> _Pair:
    first, second = tensors
    return first, second


def _can_be_written(held: Tensor, new: Tensor) -> bool:
    if held.requires_grad or new.requires_grad or type(new) is not Tensor:
        return False
    # A tensor of inference mode can only be written in inference mode.
    if held.is_inference() and not torch.is_inference_mode_enabled():
        return False
    return (held.dtype, held.device) == (new.dtype, new.device)


def _begins(part: Tensor, room: Tensor) -> bool:
    return (part.data_ptr(), part.stride(), part.shape[:2]) == (room.data_ptr(), room.stride(), room.shape[:2])


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
