"""The keys and values of all answers that are being decoded: one tensor a layer, one slot a row.

The first slots are in use, without gaps. A step therefore works on a slice and copies nothing. When a row leaves, the
last one takes its slot.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from slime_vlm.model.growing_cache import in_larger_room


class SlotCache(Cache):
    """A cache of transformers for one new token per row. Rows may have any lengths.

    Args:
        slots: The number of slots.
        max_length: The longest row.
    """

    def __init__(self, slots: int, max_length: int) -> None:
        super().__init__(layers=[])
        self.slots, self.max_length = slots, max_length
        self.lengths: list[int] = []
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._rows = self._columns = torch.empty(0, dtype=torch.long)

    @property
    def num_rows(self) -> int:
        """Number of slots in use."""
        return len(self.lengths)

    def join(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        """Put a row behind the others: keys and values [1, heads, S, width] of every layer, copied."""
        length = layers[0][0].shape[2]
        if not self._layers or length > self._layers[0][0].shape[2] or self.num_rows == len(self._layers[0][0]):
            self._grow(layers, self.num_rows + 1, length)
        for held, new in zip(self._layers, layers, strict=True):
            for mine, given in zip(held, new, strict=True):
                mine[self.num_rows, :, :length] = given[0]
        self.lengths.append(length)

    def leave(self, row: int) -> None:
        """Free a slot. The last row moves into it."""
        last = self.num_rows - 1
        if row != last:
            length = self.lengths[last]
            for held in self._layers:
                for mine in held:
                    mine[row, :, :length] = mine[last, :, :length]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def clear(self) -> None:
        """Free all slots."""
        self.lengths.clear()

    def begin_step(self, dtype: torch.dtype) -> Tensor:
        """Make room for a new token in every row.

        Returns:
            The mask [rows, 1, 1, S] to add to attention scores, 0 on the tokens of a row and on the new one.
        """
        length = max(self.lengths) + 1
        if length > self._layers[0][0].shape[2]:
            self._grow(self._layers, self.num_rows, length)
        device = self._layers[0][0].device
        self._rows = torch.arange(self.num_rows, device=device)
        self._columns = torch.tensor(self.lengths, device=device)
        self.lengths = [length + 1 for length in self.lengths]
        is_beyond = torch.arange(length, device=device) > self._columns[:, None]
        mask = torch.zeros(is_beyond.shape, dtype=dtype, device=device).masked_fill(is_beyond, torch.finfo(dtype).min)
        return mask[:, None, None]

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Store the new keys and values [rows, heads, 1, width] of a layer, and return all of them, with padding."""
        length = max(self.lengths)
        found = []
        for held, new in zip(self._layers[layer_idx], (key_states, value_states), strict=True):
            held[self._rows, :, self._columns] = new[:, :, 0]
            found.append(held[: self.num_rows, :, :length])
        return tuple(found)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the length of the longest row before the step."""
        return max(self.lengths, default=1) - 1

    def _grow(self, like: list[tuple[Tensor, Tensor]], rows: int, length: int) -> None:
        """Double the tensors until they hold this many rows and tokens. On a GPU they have their full size at once."""
        old = self._layers
        held_rows, held_length = (len(old[0][0]), old[0][0].shape[2]) if old else (1, 256)
        if like[0][0].is_cuda:
            held_rows, held_length = self.slots, self.max_length
        while held_rows < rows:
            held_rows *= 2
        while held_length < length:
            held_length *= 2
        held_rows, held_length = min(held_rows, self.slots), min(held_length, self.max_length)
        self._layers = []
        for index, layer in enumerate(like):
            source = old[index] if old else [part[:0, :, :0] for part in layer]
            keys, values = (in_larger_room(part, held_rows, held_length, fill=0.0) for part in source)
            self._layers.append((keys, values))
