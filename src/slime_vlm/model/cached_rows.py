"""Records of key-value caches: which tokens of merged rows a cache holds, at which positions.

transformers assumes that every token of `input_ids` is in the cache, at the position that the attention mask counts.
Merging breaks both assumptions. Dropped local tokens are not in the cache, and with `keep_position_ids` the next text
token does not follow the number of cached tokens. The model therefore attaches a record to every cache that it fills.
A caller who continues with the cache alone gets the right positions and the right mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicCache

from slime_vlm.errors import InputError
from slime_vlm.model.copying import Copying
from slime_vlm.model.growing_cache import growing_cache
from slime_vlm.model.input_checks import is_row_mask
from slime_vlm.model.token_merging import MergedRows

_ATTRIBUTE = "slime_rows"

UNKNOWN_TOKEN = -1
"""Stands in a record for a token that came as an embedding."""


@dataclass
class CachedRows:
    """The tokens of a cache. C tokens of `input_ids` before selection became S cached ones.

    Attributes:
        input_ids: [B, C] processed tokens, with images as their placeholders before selection.
        attention_mask: [B, S] 0 in padding.
        position_ids: [B, S].
        token_index: [B, S] index in `input_ids` of every cached token, -1 in padding.
        cells: [B, S] index in `copying.page` of every cached token, -1 for none. None without a copy output.
        copying: What answers copy from. None without a copy output.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    token_index: Tensor
    cells: Tensor | None = None
    copying: Copying | None = None

    @property
    def num_rows(self) -> int:
        """Number B of rows."""
        return self.attention_mask.shape[0]

    @property
    def num_source(self) -> int:
        """Number C of tokens of `input_ids` that the cache stands for."""
        return self.input_ids.shape[1]

    @property
    def num_cached(self) -> int:
        """Number S of cached tokens."""
        return self.attention_mask.shape[1]

    def cut(self, length: int) -> CachedRows:
        """Return the record of the first `length` cached tokens, after the cache was cropped to them."""
        if length == self.num_cached:
            return self
        index = self.token_index[:, :length]
        source = int(index.max()) + 1 if length else 0
        return CachedRows(
            self.input_ids[:, :source],
            self.attention_mask[:, :length],
            self.position_ids[:, :length],
            index,
            None if self.cells is None else self.cells[:, :length],
            None if self.copying is None or self.cells is None else self.copying.forgotten(self.cells[:, :length]),
        )

    def next_positions(self, new_mask: Tensor) -> Tensor:
        """Return the positions [B, n] of new tokens behind the cached ones.

        Args:
            new_mask: [B, n] 1 on real new tokens.
        """
        last = self.position_ids.masked_fill(self.attention_mask == 0, -1).amax(dim=1, keepdim=True)
        return (last + new_mask.long().cumsum(dim=1)).clamp(min=0)

    def followed_by(self, new: CachedRows) -> CachedRows:
        """Return the record of these tokens with new ones behind them."""
        moved = torch.where(new.token_index < 0, new.token_index, new.token_index + self.num_source)
        cells, copying = self.cells, self.copying
        if cells is not None and copying is not None and new.cells is not None and new.copying is not None:
            cells = torch.cat([cells, torch.where(new.cells < 0, new.cells, new.cells + copying.page.shape[1])], dim=1)
            copying = copying.followed_by(new.copying)
        return CachedRows(
            torch.cat([self.input_ids, new.input_ids], dim=1),
            torch.cat([self.attention_mask, new.attention_mask], dim=1),
            torch.cat([self.position_ids, new.position_ids], dim=1),
            torch.cat([self.token_index, moved], dim=1),
            cells,
            copying,
        )

    def padded(self, num_cached: int, num_source: int) -> CachedRows:
        """Return the record of rows that are padded on the left to so many cached tokens, and tokens of `input_ids`."""
        more, more_source = num_cached - self.num_cached, num_source - self.num_source
        moved = torch.where(self.token_index < 0, self.token_index, self.token_index + more_source)
        return CachedRows(
            F.pad(self.input_ids, (more_source, 0)),
            F.pad(self.attention_mask, (more, 0)),
            F.pad(self.position_ids, (more, 0)),
            F.pad(moved, (more, 0), value=-1),
        )

    def begins(self, input_ids: Tensor) -> bool:
        """Whether rows [B, n] begin with the tokens that the cache stands for."""
        count = self.num_source
        return input_ids.shape[1] >= count and torch.equal(input_ids[:, :count], self.input_ids.to(input_ids.device))

    def split_mask(self, attention_mask: Tensor | None, num_new: int, rows: int) -> tuple[Tensor, Tensor]:
        """Return the masks of the cached tokens [B, S] and of the new ones [B, n] for any mask that a caller may have.

        Args:
            attention_mask: None, or the mask of the new tokens [B, n], of cached and new ones [B, S + n], or of all
                tokens before selection [B, C + n], as a plain loop builds it.
            num_new: Number n of new tokens.
            rows: Number B of rows.

        Raises:
            InputError: The mask has another length, or the cache was filled with another number of rows.
        """
        if rows != self.num_rows:
            raise InputError(
                f"the cache was filled with {self.num_rows} row(s), and input_ids have {rows}: after "
                "changing the rows of a cache, pass position_ids and attention_mask"
            )
        if attention_mask is None:
            return self.attention_mask, self.attention_mask.new_ones(rows, num_new)
        length = attention_mask.shape[1]
        if length not in (num_new, self.num_cached + num_new, self.num_source + num_new):
            raise InputError(
                f"attention_mask has {length} columns, expected {num_new} (the new tokens), "
                f"{self.num_cached + num_new} (with the cached ones) or {self.num_source + num_new} (with all tokens "
                "before selection)"
            )
        attention_mask = attention_mask.to(self.attention_mask)
        cached = attention_mask[:, :-num_new] if length == self.num_cached + num_new else self.attention_mask
        return cached, attention_mask[:, length - num_new :]


def record_of(cache: Any) -> CachedRows | None:
    """Return the record of a cache, cut to its length. None if it has none, or one that is too short."""
    record: CachedRows | None = getattr(cache, _ATTRIBUTE, None)
    if record is None:
        return None
    length = int(cache.get_seq_length())
    return None if not 0 < length <= record.num_cached else record.cut(length)


def attach_record(cache: Any, record: CachedRows | None) -> None:
    """Attach a record to a cache, and let it follow the rows when they are reordered, chosen or repeated."""
    if cache is not None:
        setattr(cache, _ATTRIBUTE, record)
        if not isinstance(cache, _RowsFollow):
            kind: Any = type(cache)
            cache.__class__ = _following(kind)


def joined_cache(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Make one cache of several, one row after the other, padded on the left. All of their layers keep every token.

    Args:
        caches: Filled by a model without copy output, which attached their records.
    """
    length = max(int(one.get_seq_length()) for one in caches)
    joined = growing_cache()
    for index, layers in enumerate(zip(*(one.layers for one in caches), strict=True)):
        keys, values = (
            torch.cat([F.pad(part, (0, 0, length - part.shape[2], 0)) for part in parts])
            for parts in zip(*((layer.keys, layer.values) for layer in layers), strict=True)
        )
        joined.update(keys, values, index)
    records = [record for one in caches if (record := record_of(one)) is not None]
    num_source = max(record.num_source for record in records)
    padded = [record.padded(length, num_source) for record in records]
    record = CachedRows(
        torch.cat([one.input_ids for one in padded]),
        torch.cat([one.attention_mask for one in padded]),
        torch.cat([one.position_ids for one in padded]),
        torch.cat([one.token_index for one in padded]),
    )
    attach_record(joined, record)
    return joined


class _RowsFollow:
    """Methods of a cache that change its rows, as beam search does. The record changes with them.

    They cannot be told from the cache afterwards: its tensors have the same shapes, and the record would give the
    tokens of one row the positions and the padding of another. A class is changed, not an instance, since methods that
    are stored on a cache would refer to it, and it would outlive its last use.
    """

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        self._change_rows(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        self._change_rows(lambda rows: rows[indices.to(rows.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        self._change_rows(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def _change_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        record: CachedRows | None = getattr(self, _ATTRIBUTE, None)
        if record is not None:
            parts = {part.name: getattr(record, part.name) for part in fields(record)}
            changed = {name: change(part) for name, part in parts.items() if isinstance(part, Tensor)}
            copying = None if record.copying is None else record.copying.map(change)
            setattr(self, _ATTRIBUTE, CachedRows(**changed, copying=copying))

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made when it is needed, so that pickle and deepcopy cannot find it by its name.
        return _empty_cache, (type(self).__mro__[2],), self.__dict__


@cache
def _following(kind: type) -> type:
    return type(kind.__name__, (_RowsFollow, kind), {})


def _empty_cache(kind: type) -> Any:
    return object.__new__(_following(kind))


def rows_of(merged: MergedRows, input_ids: Tensor, position_ids: Tensor) -> CachedRows:
    """Make the record of merged rows.

    Args:
        merged: The rows.
        input_ids: [B, C] the rows before selection.
        position_ids: [B, S] the positions that the language model gets.
    """
    mask = merged.attention_mask
    return CachedRows(input_ids, mask, position_ids.expand_as(mask), merged.token_index, merged.cells, merged.copying)


def rows_of_text(input_ids: Tensor, new_mask: Tensor, position_ids: Tensor) -> CachedRows:
    """Make the record of rows [B, n] from which nothing was dropped."""
    index = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    return CachedRows(input_ids, new_mask, position_ids.expand_as(input_ids), index.masked_fill(new_mask == 0, -1))


def cached_and_new_masks(
    record: CachedRows | None, attention_mask: Tensor | None, input_ids: Tensor, num_cached: int, is_whole_prompt: bool
) -> tuple[Tensor, Tensor]:
    """Return the masks of the cached tokens, [B, 0] for a whole prompt, and of the new ones [B, n]."""
    batch_size, length = input_ids.shape
    if record is not None and not is_whole_prompt:
        return record.split_mask(attention_mask, length, batch_size)
    if attention_mask is None:
        attention_mask = input_ids.new_ones(batch_size, num_cached + length)
    return attention_mask[:, :-length], attention_mask[:, -length:]


def first_new_position(record: CachedRows | None, cached_mask: Tensor, position_ids: Tensor | None) -> Tensor:
    """Return the position [B, 1] of the first token behind a filled cache."""
    if position_ids is not None:
        return position_ids[:, :1]
    if record is None:
        return cached_mask.sum(dim=1, keepdim=True)
    return record.next_positions(cached_mask.new_ones(cached_mask.shape[0], 1))


def continue_with_text(
    record: CachedRows,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
) -> tuple[Tensor | None, Tensor, CachedRows]:
    """Return mask and positions of text that follows a filled cache, and the record of this text."""
    if input_ids is None:
        assert inputs_embeds is not None
        input_ids = torch.full(inputs_embeds.shape[:2], UNKNOWN_TOKEN, device=inputs_embeds.device)
    batch_size, length = input_ids.shape
    row_mask = attention_mask if is_row_mask(attention_mask) else None
    cached_mask, new_mask = record.split_mask(row_mask, length, batch_size)
    if is_row_mask(attention_mask):
        attention_mask = torch.cat([cached_mask, new_mask], dim=1)
    if position_ids is None:
        position_ids = record.next_positions(new_mask)
    return attention_mask, position_ids, rows_of_text(input_ids, new_mask, position_ids)
