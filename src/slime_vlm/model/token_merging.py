"""Merging of images into rows of text: the only file where rows change their length (paper section 3.4).

In `input_ids` every image has one placeholder per token before selection. Merging drops the placeholders of local
tokens that were not kept, and pads the rows anew. Only what is left is embedded, and features replace the placeholders.
An image of many tiles therefore costs no more here than the tokens that it keeps. There is no loop over tokens.

Deviation: a prompt may hold several images, each with its own selection. The published code fails on two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slime_vlm.errors import InputError
from slime_vlm.model.copying import Copying
from slime_vlm.model.input_checks import check_tensors
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.tiling import TokenLayout


@dataclass
class MergedRows:
    """Rows as the language model processes them. S is the length of the longest row after merging.

    Attributes:
        input_ids: [B, S], 0 in padding.
        attention_mask: [B, S] long, 0 in padding.
        position_ids: [B, S], 0 in padding.
        labels: [B, S] with -100 in padding, or None.
        token_index: [B, S] index of every token before merging, -1 in padding.
        cells: [B, S] index in `copying.page` of every token, -1 for none. None without a copy output.
        copying: What answers copy from. None without a copy output.
        beginnings: [B, T, P + 1] what an answer finder says of the cells for every turn (`AnswerFinder`), very little
            for turns whose answer does not begin here. None if none does, or without one.
        endings: [B, T, P] the same of where answers end.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None
    token_index: Tensor
    cells: Tensor | None = None
    copying: Copying | None = None
    beginnings: Tensor | None = None
    endings: Tensor | None = None


def check_vision_tokens(
    vision_tokens: Sequence[VisionTokens],
    layout: TokenLayout,
    kept_local_tokens: Sequence[Tensor] | None = None,
    has_characters: bool = False,
    has_contexts: bool = False,
) -> None:
    """Check that every image has as many tokens as placeholders.

    Every image is checked by itself. If only the sum were checked, one image could get the tokens of another unnoticed.

    Args:
        vision_tokens: Tokens of every image.
        layout: Expected numbers of tokens.
        kept_local_tokens: [L] bool for every image.
        has_characters: Whether local tokens of the model name characters.
        has_contexts: Whether the model has an answer finder.

    Raises:
        InputError: An image is no `VisionTokens` or has another number of them, or a mask does not fit its image.
    """
    for index, tokens in enumerate(vision_tokens):
        if not isinstance(tokens, VisionTokens):
            raise InputError(
                f"vision_tokens hold a {type(tokens).__name__}, expected VisionTokens: pass what encode_image or "
                "encode_images returns"
            )
        rows, cols = tokens.grid
        if has_characters != (tokens.characters is not None):
            raise InputError(
                f"the tokens of image {index} name {'no ' if has_characters else ''}characters, and this model's do "
                f"{'' if has_characters else 'not'}: encode it with this model and its config"
            )
        if has_contexts and tokens.contexts is None:
            raise InputError(
                f"the tokens of image {index} have no contexts, which this model's answer finder needs: encode it with "
                "this model and its config"
            )
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
        check_tensors(**{f"kept_local_tokens of image {index}": kept})
        if kept.dtype != torch.bool or tuple(kept.shape) != (tokens.num_local_tokens,):
            raise InputError(
                f"kept_local_tokens of image {index} is {kept.dtype} {list(kept.shape)}, expected torch.bool "
                f"[{tokens.num_local_tokens}]: one value per local token"
            )


def image_rows(placeholders: Tensor, counts: Tensor) -> Tensor:
    """Find the row of every image, and check that the placeholders are those of whole images.

    Args:
        placeholders: [B, S] True on image placeholders.
        counts: [I] number of placeholders of every image.

    Returns:
        [I] row of every image.

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
            f"the placeholders of image {image} are in two rows, expected {int(counts[image])} in one row: "
            "pass images in the order of the rows that hold them"
        )
    return first


def padding_side_of(attention_mask: Tensor, default: str = "right") -> str:
    """Return the side on which rows are padded, "left" or "right", or `default` if no row has padding."""
    if bool((attention_mask[:, 0] == 0).any()):
        return "left"
    return "right" if bool((attention_mask[:, -1] == 0).any()) else default


def fill_placeholders(embeddings: Tensor, placeholders: Tensor, features: Tensor) -> Tensor:
    """Replace the placeholders in embeddings [B, S, D] by image features [P, D], in order."""
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
    uncounted: Tensor | None = None,
) -> MergedRows:
    """Drop tokens from the rows and pad them anew.

    Args:
        input_ids: [B, S].
        attention_mask: [B, S] 1 on real tokens.
        kept: [B, S] True on tokens to keep. Padding is always dropped.
        padding_side: "left" or "right".
        labels: [B, S] with -100 on placeholders.
        position_ids: [B, S] positions before dropping, to use instead of counted ones.
        keep_position_ids: Whether tokens keep the position that they had before dropping.
        max_length: Maximum number of tokens of a row. Longer rows are cut.
        uncounted: [B, S] True on dropped tokens that `keep_position_ids` gives no position.
    """
    real = attention_mask != 0
    if position_ids is None and keep_position_ids:
        # Deviation: not in the paper. For small language models: dropping a token does not move the others.
        counted = real if uncounted is None else real & ~uncounted
        position_ids = counted.long().cumsum(dim=1) - 1
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
    """Return the part [1, S - cached] of a whole prompt that follows the tokens of a cache.

    Raises:
        InputError: The cache does not hold the first tokens. There are several rows, or no token follows, or local
            tokens among the first were dropped: other ones may have been dropped when the cache was filled.
    """
    batch_size, length = rows.input_ids.shape
    if batch_size > 1 or cached >= length or int(rows.token_index[0, cached - 1]) != cached - 1:
        raise InputError(
            f"the cache holds {cached} tokens of {batch_size} whole prompt(s) of {length} tokens after merging, "
            "expected one prompt, and a cache that ends before its local tokens: otherwise pass only the tokens after "
            "the cached ones, with an attention_mask over both"
        )
    return MergedRows(
        input_ids=rows.input_ids[:, cached:],
        attention_mask=rows.attention_mask[:, cached:],
        position_ids=rows.position_ids[:, cached:],
        labels=None if rows.labels is None else rows.labels[:, cached:],
        token_index=rows.token_index[:, cached:],
        cells=None if rows.cells is None else rows.cells[:, cached:],
        copying=rows.copying,
        beginnings=rows.beginnings,
        endings=rows.endings,
    )


def pack_rows(rows: MergedRows, embeddings: Tensor) -> tuple[MergedRows, Tensor]:
    """Lay all rows end to end in a single one, without padding.

    Deviation: not in the paper, where batches are padded. Rows do not attend to each other (`packed_attention`), so the
    loss is the same.

    Args:
        rows: Rows [B, S] whose positions start at 0.
        embeddings: [B, S, D].

    Returns:
        The row and its embeddings [1, N, D] for N real tokens. The first token of every original row loses its label,
        since the token before it belongs to another row.
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
