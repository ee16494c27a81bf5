"""Images into sequences: the one place where embeddings, mask, positions and labels change length (paper section 3.4).

Every image stands in `input_ids` as one placeholder per token that it has before selection. Merging fills the
placeholders with features, drops the places of local tokens that were not kept, and pads the rows again. All of it
works on index tensors; there is no loop over tokens.

Deviation: a prompt may hold several images, each with a selection of its own; the published code fails on two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from slime_vlm.errors import InputError

IGNORED_LABEL = -100


@dataclass
class MergedRows:
    """Rows as the language model reads them; S is the longest row's length after merging.

    Attributes:
        inputs_embeds: [B, S, D], zero in padding.
        attention_mask: [B, S] long, 0 in padding.
        position_ids: [B, S], 0 in padding.
        labels: [B, S] with -100 in padding, or None.
        token_index: [B, S] place that every token had before merging, -1 in padding.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None
    token_index: Tensor


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


def merge_rows(
    embeddings: Tensor,
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
        embeddings: [B, S, D] with the image features filled in.
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
    length = int(kept.sum(dim=1).max())
    # A stable sort moves the kept tokens to one end of their row and leaves their order alone.
    order = kept.long().argsort(dim=1, descending=padding_side == "right", stable=True)
    order = order[:, :length] if padding_side == "right" else order[:, order.shape[1] - length :]
    mask = kept.gather(1, order)
    if position_ids is None:
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    else:
        positions = position_ids.expand_as(kept).gather(1, order)
    return MergedRows(
        inputs_embeds=embeddings.gather(1, order[..., None].expand(-1, -1, embeddings.shape[-1])) * mask[..., None],
        attention_mask=mask.long(),
        position_ids=positions.masked_fill(~mask, 0),
        labels=None if labels is None else labels.gather(1, order).masked_fill(~mask, IGNORED_LABEL),
        token_index=order.masked_fill(~mask, -1),
    )
