"""Images into sequences: the one place where embeddings, mask, positions and labels change length (paper section 3.4).

Every image stands in `input_ids` as one placeholder per token that it has before selection. Merging drops the places of
local tokens that were not kept and pads the rows again. Only what is left is then embedded, and its placeholders filled
with features, so an image of many tiles costs no more here than the tokens that it keeps. All of it works on index
tensors; there is no loop over tokens.

Deviation: a prompt may hold several images, each with a selection of its own; the published code fails on two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slime_vlm.errors import InputError
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.tiling import TokenLayout


@dataclass
class MergedRows:
    """Rows as the language model reads them; S is the longest row's length after merging.

    Attributes:
        input_ids: [B, S], 0 in padding.
        attention_mask: [B, S] long, 0 in padding.
        position_ids: [B, S], 0 in padding.
        labels: [B, S] with -100 in padding, or None.
        token_index: [B, S] place that every token had before merging, -1 in padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None
    token_index: Tensor


def check_vision_tokens(
    vision_tokens: Sequence[VisionTokens], layout: TokenLayout, kept_local_tokens: Sequence[Tensor] | None = None
) -> None:
    """Check that every image has the tokens of its placeholders.

    Image by image: with a right sum alone, one image could be filled with the tokens of another and nobody would see.

    Args:
        vision_tokens: Tokens of every image.
        layout: How many there have to be.
        kept_local_tokens: [L] bool for every image.

    Raises:
        InputError: An image has another number of tokens, or the masks are not those of the images.
    """
    for index, tokens in enumerate(vision_tokens):
        rows, cols = tokens.grid
        expected = (layout.num_global_tokens, layout.num_local_tokens(rows, cols))
        found = tuple(0 if part is None else len(part) for part in (tokens.global_tokens, tokens.local_tokens))
        if found != expected:
            raise InputError(
                f"image {index} has {found[0]} global and {found[1]} local tokens, expected {expected[0]} and "
                f"{expected[1]} for {rows} x {cols} tiles: encode it with this model and its config"
            )
    if kept_local_tokens is None:
        return
    if len(kept_local_tokens) != len(vision_tokens):
        raise InputError(
            f"kept_local_tokens has {len(kept_local_tokens)} mask(s), expected {len(vision_tokens)}: one per image"
        )
    for index, (kept, tokens) in enumerate(zip(kept_local_tokens, vision_tokens, strict=True)):
        if kept.dtype != torch.bool or tuple(kept.shape) != (tokens.num_local_tokens,):
            raise InputError(
                f"kept_local_tokens of image {index} is {kept.dtype} {list(kept.shape)}, expected torch.bool "
                f"[{tokens.num_local_tokens}]: one value per local token"
            )


def image_rows(placeholders: Tensor, counts: Tensor) -> Tensor:
    """Find the row of every image and check that the placeholders are those of whole images.

    Args:
        placeholders: [B, S] True on image placeholders.
        counts: [I] placeholders that every image takes.

    Returns:
        [I] row index.

    Raises:
        InputError: The placeholders do not fit the images.
    """
    found, expected = int(placeholders.sum()), int(counts.sum())
    if found != expected:
        raise InputError(
            f"input_ids hold {found} image placeholders, expected {expected} for {len(counts)} image(s): "
            "prepare text and images with the same processor and config"
        )
    rows = placeholders.nonzero()[:, 0]
    ends = counts.cumsum(0)
    first, last = rows[ends - counts], rows[ends - 1]
    if not torch.equal(first, last):
        image = int((first != last).nonzero()[0])
        raise InputError(
            f"the placeholders of image {image} run over two rows, expected {int(counts[image])} in one row: "
            "pass images in the order of the rows that hold them"
        )
    return first


def padding_side_of(attention_mask: Tensor, default: str = "right") -> str:
    """Side on which rows are padded: "left" or "right"; `default` when no row has padding."""
    if bool((attention_mask[:, 0] == 0).any()):
        return "left"
    return "right" if bool((attention_mask[:, -1] == 0).any()) else default


def fill_placeholders(embeddings: Tensor, placeholders: Tensor, features: Tensor) -> Tensor:
    """Put image features [P, D] into the placeholders, in order, of embeddings [B, S, D]."""
    return embeddings.masked_scatter(placeholders[..., None], features.to(embeddings.dtype))


@dataclass
class KeptColumns:
    """The columns of padded rows that are left after dropping tokens.

    Attributes:
        index: [B, S] column that every token had before; in padding, a column that was dropped.
        mask: [B, S] False in padding.
    """

    index: Tensor
    mask: Tensor

    def gather(self, values: Tensor, fill: float) -> Tensor:
        """Return the kept columns of values [B, S'], with `fill` in padding."""
        return values.gather(1, self.index).masked_fill(~self.mask, fill)


def kept_columns(kept: Tensor, padding_side: str) -> KeptColumns:
    """Drop tokens and pad the rows anew. Everything that belongs to a token follows the returned index.

    Args:
        kept: [B, S'] True on tokens to keep.
        padding_side: "left" or "right".
    """
    length = int(kept.sum(dim=1).max())
    # A stable sort moves the kept tokens to one end of their row and leaves their order alone.
    order = kept.long().argsort(dim=1, descending=padding_side == "right", stable=True)
    order = order[:, :length] if padding_side == "right" else order[:, order.shape[1] - length :]
    return KeptColumns(order, kept.gather(1, order))


def merge_rows(
    input_ids: Tensor,
    attention_mask: Tensor,
    kept: Tensor,
    *,
    padding_side: str,
    labels: Tensor | None = None,
    position_ids: Tensor | None = None,
    keep_position_ids: bool = False,
    max_length: int | None = None,
) -> MergedRows:
    """Drop tokens and pad the rows anew.

    Args:
        input_ids: [B, S].
        attention_mask: [B, S] 1 on real tokens.
        kept: [B, S] True on tokens to keep; padding is dropped whatever this says.
        padding_side: "left" or "right".
        labels: [B, S]; the caller has set those of placeholders to -100.
        position_ids: [B, S] positions before dropping, to use in place of counted ones.
        keep_position_ids: Whether tokens keep the position they had before dropping.
        max_length: Cut every row to so many tokens.
    """
    real = attention_mask != 0
    if position_ids is None and keep_position_ids:
        # Deviation: not in the paper. For small language models, so that dropping a token moves no other.
        position_ids = real.long().cumsum(dim=1) - 1
    kept = kept & real
    if max_length is not None:
        kept = kept & (kept.long().cumsum(dim=1) <= max_length)
    columns = kept_columns(kept, padding_side)
    if position_ids is None:
        positions = (columns.mask.long().cumsum(dim=1) - 1).clamp(min=0).masked_fill(~columns.mask, 0)
    else:
        positions = columns.gather(position_ids.expand_as(kept), 0)
    return MergedRows(
        input_ids=columns.gather(input_ids, 0),
        attention_mask=columns.mask.long(),
        position_ids=positions,
        labels=None if labels is None else columns.gather(labels, IGNORED_LABEL),
        token_index=columns.index.masked_fill(~columns.mask, -1),
    )


def after_beginning(rows: MergedRows, cached: int) -> MergedRows:
    """The part [1, S - cached] of a whole prompt that a cache of its first tokens leaves to read.

    Raises:
        InputError: The cache cannot hold the first tokens: there are several rows, or nothing is left, or local tokens
            among the first were dropped, which may have been others when the cache was filled.
    """
    batch_size, length = rows.input_ids.shape
    if batch_size > 1 or cached >= length or int(rows.token_index[0, cached - 1]) != cached - 1:
        raise InputError(
            f"the cache holds {cached} tokens of {batch_size} whole prompt(s) of {length} tokens after merging, "
            "expected one prompt and a cache that ends before its local tokens: otherwise pass only what follows the "
            "cached tokens, with an attention_mask over both"
        )
    return MergedRows(
        input_ids=rows.input_ids[:, cached:],
        attention_mask=rows.attention_mask[:, cached:],
        position_ids=rows.position_ids[:, cached:],
        labels=None if rows.labels is None else rows.labels[:, cached:],
        token_index=rows.token_index[:, cached:],
    )


def pack_rows(rows: MergedRows, embeddings: Tensor) -> tuple[MergedRows, Tensor]:
    """Lay all rows end to end in one, without padding.

    Deviation: not in the paper, whose batches are padded. Rows do not see each other, see `packed_attention`, so the
    loss is the same.

    Args:
        rows: [B, S] each; their positions begin at 0.
        embeddings: [B, S, D].

    Returns:
        The one row and its embeddings [1, N, D] for N real tokens. The first token of every row has no label: what
        stands before it belongs to another.
    """
    real = rows.attention_mask != 0
    labels = None
    if rows.labels is not None:
        first = real & (real.long().cumsum(dim=1) == 1)
        labels = rows.labels.masked_fill(first, IGNORED_LABEL)[real][None]
    packed = MergedRows(
        input_ids=rows.input_ids[real][None],
        attention_mask=rows.attention_mask[real][None],
        position_ids=rows.position_ids[real][None],
        labels=labels,
        token_index=rows.token_index[real][None],
    )
    return packed, embeddings[real][None]
