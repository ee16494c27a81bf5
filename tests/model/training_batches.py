"""Batches with labels for a tiny model: images of several sizes and rows of text."""

from __future__ import annotations

from typing import Any

import torch

from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from tests.conftest import pad_batch, prompt_ids

ROWS: list[list[list[int] | tuple[int, int]]] = [
    [[5, 6], (1, 2), [7, 8, 9]],
    [[5, 6, 11, 12]],
    [[8], (2, 2), [7, 8, 9, 10, 11]],
    [(1, 1), [13, 14]],
]
"""Two tiles, no image, four tiles, one tile."""

TEXT_ROWS: list[list[list[int] | tuple[int, int]]] = [[[5, 6, 11, 12]], [[7, 9]]]


def mixed_batch(model: SlimeForConditionalGeneration, rows: Any = None, seed: int = 1) -> dict[str, Any]:
    """Inputs of the model, the last two tokens of every row being its answer."""
    rows = ROWS if rows is None else rows
    batch: dict[str, Any] = pad_batch([prompt_ids(model.config, *row) for row in rows])
    labels = torch.full_like(batch["input_ids"], -100)
    for label, ids, mask in zip(labels, batch["input_ids"], batch["attention_mask"], strict=True):
        length = int(mask.sum())
        label[length - 2 : length] = ids[length - 2 : length]
    batch["labels"] = labels
    grids = [part for row in rows for part in row if isinstance(part, tuple)]
    if grids:
        views, side = sum(1 + rows * cols for rows, cols in grids), model.config.view_size
        pixels = torch.randn(views, 3, side, side, generator=torch.Generator().manual_seed(seed))
        batch |= {"pixel_values": pixels, "image_grids": torch.tensor(grids)}
    return batch
