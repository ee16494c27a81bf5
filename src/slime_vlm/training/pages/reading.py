"""Teach the local compressor's queries to read: a throw-away head names the characters of every token's cell.

Reading is trained before the language model takes part: answers teach an encoder next to nothing in the same time.
`scripts/train_reader.py` runs it, and measures it on held-out pages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from slime_vlm.model.local_compressor import LocalCompressor
from slime_vlm.model.query_attention import QueryAttention
from slime_vlm.model.recogniser_encoder import RecogniserEncoder
from slime_vlm.model.tiling import choose_grid, image_to_tile_order, tile_to_image_order
from slime_vlm.processing.view_cutting import cut_views
from slime_vlm.training.pages.character_cells import (
    NOTHING,
    NUM_CHARACTER_IDS,
    CharacterCells,
    cells_right,
    character_cells,
    characters_of,
)

if TYPE_CHECKING:
    from slime_vlm.pages.readable import ReadablePage


class PageReader(nn.Module):
    """The parts of SliME that read tiles, under the names that they have in `SlimeModel`, and the head.

    Args:
        vision_tower: The encoder.
        num_queries: Queries Q of a tile.
        num_heads: Heads of the query attention.
        slots: Characters that a token can name.
        hidden: Width of the head's hidden layer.
        margin: Share of a view's side that lies beyond its tile, at every edge.
    """

    def __init__(
        self,
        vision_tower: RecogniserEncoder,
        *,
        num_queries: int,
        num_heads: int,
        slots: int,
        hidden: int = 512,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        dim = vision_tower.config.hidden_size
        self.num_queries, self.slots = num_queries, slots
        self.vision_tower = vision_tower
        self.local_compressor = LocalCompressor(num_queries=num_queries, dim=dim, num_heads=num_heads, margin=margin)
        self.head = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, slots * NUM_CHARACTER_IDS))
        start_reading(self.local_compressor.query_attention)

    @property
    def _last_stage(self) -> nn.Sequential:
        stage = self.vision_tower.stages[-1]
        assert isinstance(stage, nn.Sequential)
        return stage

    def early_map(self, tiles: Tensor, blocks: int = 0) -> Tensor:
        """Return the map [T, C_i, h, w] of tiles [T, 3, P, P] before the last blocks of the last stage."""
        tower = self.vision_tower
        features = tower.stem(tiles.contiguous(memory_format=torch.channels_last))
        for stage in tower.stages[:-1]:
            features = stage(features)
        last = self._last_stage
        return last[: len(last) - blocks](features)

    def forward(self, early_map: Tensor, blocks: int = 0) -> Tensor:
        """Return the logits [T, Q, slots, characters] of what `early_map` gives with as many blocks."""
        last = self._last_stage
        tokens = self.local_compressor(self.vision_tower.project(last[len(last) - blocks :](early_map)))
        return self.head(tokens).unflatten(-1, (self.slots, NUM_CHARACTER_IDS))


# (down, right) from a query's position, in units of the queries' grid: the ninths of its own cell, the nearer parts of
# the cells to the left and to the right, and the middle once more.
_NINTHS = [(y, x) for y in (-1 / 3, 0.0, 1 / 3) for x in (-1 / 3, 0.0, 1 / 3)]
_LOOKS = [*_NINTHS, (0.0, -2 / 3), (0.0, 2 / 3), (0.0, 0.0)]


def start_reading(attention: QueryAttention, sharpness: float = 35.0) -> None:
    """Let every head of a query attention look at one part of the query's surroundings.

    Deviation: the published code draws the projections. Here a head compares positions alone, shifted by its offset;
    what the features hold takes part once it has been learnt.

    Args:
        attention: The layer, with twelve heads or any other number (they take the parts in turn).
        sharpness: Scale of the logits. Larger looks at fewer features.
    """
    dim = attention.query.shape[1]
    head_dim = dim // attention.num_heads
    frequencies = 10000.0 ** (-torch.arange(head_dim // 4) / (dim // 4))
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            projection.bias.zero_()
            projection.weight.normal_(std=0.005)
            for head in range(attention.num_heads):
                # The position code has the column first.
                for axis, offset in enumerate(reversed(_LOOKS[head % len(_LOOKS)])):
                    shift = offset if projection is attention.q_proj else 0.0
                    for i, frequency in enumerate(frequencies.tolist()):
                        row = head * head_dim + 4 * i + 2 * axis
                        sine = 2 * axis * (dim // 4) + i
                        cosine = sine + dim // 4
                        turn = frequency * shift
                        projection.weight[row, sine] = projection.weight[row + 1, cosine] = math.cos(turn)
                        projection.weight[row, cosine] = math.sin(turn)
                        projection.weight[row + 1, sine] = -math.sin(turn)
            projection.weight.mul_(sharpness**0.5)
        # Content starts small beside the positions, but not in the values: beside the biases it would be lost there.
        attention.norm_query.weight.fill_(0.05)
        attention.norm_input.weight.fill_(0.05)
        attention.v_proj.weight.div_(0.05)
        attention.v_proj.bias.zero_()
        attention.out_proj.bias.zero_()


@torch.no_grad()
def start_from_tiles(reader: PageReader, last_map: Tensor, ids: Tensor, blank_weight: float = 0.2) -> None:
    """Fit what is new in a reader to some tiles: the projection to the maps' channels, the head to the characters.

    The projection takes every channel at the same spread about zero. The head begins with each slot's character
    frequencies, which would otherwise be what the first hundred steps learn.

    Args:
        reader: A reader that has not been trained.
        last_map: [T, C_i, h, w], see `PageReader.early_map`.
        ids: [T, Q, A, slots], see `LabelledTiles`.
        blank_weight: See `reading_loss`.
    """
    std, mean = torch.std_mean(last_map.float(), dim=(0, 2, 3))
    projection, head = reader.vision_tower.projection, reader.head[-1]
    assert projection.bias is not None
    assert isinstance(head, nn.Linear)
    projection.weight.mul_((std.mean() / (std + 0.01))[:, None, None])
    projection.bias.copy_(-projection.weight.sum(dim=(2, 3)) @ mean)
    labels = ids[:, :, 0]
    cell_weight = torch.where((labels == NOTHING).all(dim=-1), blank_weight, 1.0)
    counts = torch.ones(reader.slots, NUM_CHARACTER_IDS)
    for slot in range(reader.slots):
        counts[slot].index_add_(0, labels[..., slot].flatten(), cell_weight.flatten())
    head.bias.copy_((counts / counts.sum(dim=-1, keepdim=True)).log().flatten())


def reading_loss(logits: Tensor, ids: Tensor, weights: Tensor, blank_weight: float = 0.2) -> Tensor:
    """Negative log-probability of the labels, summed over their alternatives; the mean over cells.

    Args:
        logits: [..., slots, characters].
        ids: int64 [..., A, slots], see `CharacterCells.alternatives`.
        weights: [..., A] probability of every alternative.
        blank_weight: Weight of a cell that holds nothing.
    """
    log_probs = logits.float().log_softmax(dim=-1)
    named = log_probs.gather(-1, ids.transpose(-1, -2)).sum(dim=-2)
    loss = -torch.logsumexp(named + weights.log(), dim=-1)
    cell_weight = torch.where((ids == 0).all(dim=-1).all(dim=-1), blank_weight, 1.0)
    return (loss * cell_weight).sum() / cell_weight.sum()


@dataclass
class LabelledTiles:
    """The tiles of a page, with what their cells show.

    Attributes:
        views: uint8 [T, P, P, 3].
        ids: int64 [T, Q, A, slots].
        weights: float32 [T, Q, A].
        cells: The labels in the order of the page.
        grid: (rows, columns) of tiles.
    """

    views: Tensor
    ids: Tensor
    weights: Tensor
    cells: CharacterCells
    grid: tuple[int, int]

    def pixels(self, index: Tensor) -> Tensor:
        """Return some tiles as the encoder takes them: float32 [t, 3, P, P]."""
        return self.views[index].permute(0, 3, 1, 2).float() / 127.5 - 1.0

    def chosen(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw some tiles by how many of their cells show something: their pixels, ids and weights."""
        shown = (self.ids[..., 0, 0] > 0).sum(dim=1).numpy() + 0.5
        count = min(count, len(shown))
        index = torch.from_numpy(rng.choice(len(shown), count, replace=False, p=shown / shown.sum()))
        return self.pixels(index), self.ids[index], self.weights[index]


def labelled_tiles(
    page: ReadablePage, *, view_size: int, max_tiles: int, side: int, slots: int, margin: int = 0
) -> LabelledTiles:
    """Cut a page into tiles as the image processor does, and label them.

    Args:
        page: The page.
        view_size: Side P of a view: a tile and its margins.
        max_tiles: Most tiles of a page.
        side: Tokens along one side of a tile.
        slots: Characters that a token can name.
        margin: Pixels that a view shows beyond its tile, at every edge.
    """
    height, width = page.image.shape[:2]
    grid = choose_grid(height, width, view_size, max_tiles, margin)
    views = np.stack(list(cut_views(Image.fromarray(page.image), grid, Image.Resampling.BICUBIC, "local")))
    cells = character_cells(page.characters, page.boxes, (height, width), grid, side)
    ids, weights = (
        image_to_tile_order(torch.from_numpy(part).flatten(0, 1), grid.rows, grid.cols)
        for part in cells.alternatives(slots)
    )
    return LabelledTiles(torch.from_numpy(views), ids, weights, cells, (grid.rows, grid.cols))


@torch.inference_mode()
def read_page(reader: PageReader, page: LabelledTiles, *, whole: bool = False, tiles_per_chunk: int = 4) -> np.ndarray:
    """Read a page.

    Args:
        reader: The model.
        page: The page.
        whole: Whether to read all tiles. Otherwise those without labels are taken as blank.
        tiles_per_chunk: Tiles that are read at once.

    Returns:
        Ids [rows, cols, slots] in the order of the page.
    """
    shown = ((page.ids[:, :, 0] > 0).flatten(1).any(dim=1) | whole).nonzero()[:, 0]
    ids = torch.zeros(len(page.views), reader.num_queries, reader.slots, dtype=torch.long)
    for index in shown.split(tiles_per_chunk):
        ids[index] = reader(reader.early_map(page.pixels(index))).argmax(dim=-1)
    rows, cols = page.cells.rows, page.cells.cols
    return tile_to_image_order(ids, *page.grid).reshape(rows, cols, -1).numpy()


def reading_score(reader: PageReader, page: LabelledTiles) -> dict[str, int]:
    """Count cells that show something and those read right, as `cells_right` judges. Blank tiles are not read.

    Returns:
        "cells", "right", the same for cells of at most three characters ("short", "short_right"), and "exact", cells
        whose characters by their middles alone are named.
    """
    predicted = read_page(reader, page)
    right, shows = cells_right(predicted, page.cells)
    strings = page.cells.strings()
    short = np.array([len(string) <= 3 for string in strings]).reshape(shows.shape) & shows
    exact = [
        characters_of(ids) == characters_of(string)
        for ids, string in zip(predicted.reshape(len(strings), -1).tolist(), strings, strict=True)
    ]
    return {
        "cells": int(shows.sum()),
        "right": int((right & shows).sum()),
        "short": int(short.sum()),
        "short_right": int((right & short).sum()),
        "exact": int((np.array(exact).reshape(shows.shape) & shows).sum()),
    }
