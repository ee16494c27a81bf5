"""Image inputs in both layouts of a batch: one row per view, or one row per image.

The processor's default layout has one row per view, without padding. Code that slices a batch by images, such as TRL,
needs one row per image in every image field. It also carries along only fields whose names it knows. In that layout the
views of an image are padded to the largest number of the batch, and its grid is given as the size of its scaled image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slime_vlm.errors import InputError

QUESTION, PROMPT = 1, 2
"""Token types of the layout with one row per image: tokens of a question, and other tokens that are no answer."""


def images_as_rows(pixel_values: Tensor, image_grids: Tensor, view_size: int) -> tuple[Tensor, Tensor]:
    """Convert image inputs to one row per image.

    Args:
        pixel_values: [V, 3, H, W] views of all images.
        image_grids: [I, 2] (rows, columns) of every image.
        view_size: Side of a tile in pixels.

    Returns:
        The views [I, v, 3, H, W], padded with zeros, and the sizes [I, 2] (height, width) of the scaled images.
    """
    views = pixel_values.split((1 + image_grids.prod(dim=1)).tolist())
    return pad_sequence(list(views), batch_first=True), image_grids * view_size


def views_as_rows(
    pixel_values: Tensor | None, image_grids: Tensor | None, image_sizes: Tensor | None, view_size: int
) -> tuple[Tensor | None, Tensor | None]:
    """Convert image inputs of either layout to one row per view.

    Args:
        pixel_values: [V, 3, H, W] views, [I, v, 3, H, W] padded views of every image, or [B, v, 3, H, W] views of
            samples that a collator has stacked. Features of a frozen encoder [V, N, C] are returned as they are.
        image_grids: [I, 2] (rows, columns), or [B, i, 2] of stacked samples.
        image_sizes: [I, 2] (height, width) of the scaled images, instead of `image_grids`.
        view_size: Side of a tile in pixels.

    Returns:
        `pixel_values` [V, 3, H, W] and `image_grids` [I, 2].

    Raises:
        InputError: Sizes are no multiples of a tile, or views and grids do not fit.
    """
    if image_grids is None and image_sizes is not None:
        image_grids = image_sizes // view_size
        if bool((image_sizes % view_size != 0).any()) or bool((image_grids < 1).any()):
            raise InputError(
                f"image_sizes are {image_sizes.tolist()}, expected multiples of view_size {view_size}: pass those of "
                "the processor"
            )
    if pixel_values is None or pixel_values.ndim < 5:
        return pixel_values, image_grids
    if image_grids is None:
        raise InputError("image_grids is missing, expected the processor's (rows, columns) with pixel_values")
    counts = 1 + image_grids.prod(dim=-1)
    # Stacked samples: each has the views of all its images one after the other, or of each image in its own row.
    counts = counts.flatten() if pixel_values.ndim > 5 or image_grids.ndim < 3 else counts.sum(dim=-1)
    rows = pixel_values.flatten(0, -5)
    if len(rows) != len(counts) or int(counts.max()) > rows.shape[1]:
        raise InputError(
            f"pixel_values has shape {list(pixel_values.shape)} and image_grids {image_grids.tolist()}, expected "
            f"{len(counts)} row(s) of at least {int(counts.max())} views: prepare both with the same processor"
        )
    real = torch.arange(rows.shape[1], device=rows.device) < counts.to(rows.device)[:, None]
    return rows[real], image_grids.reshape(-1, 2)
