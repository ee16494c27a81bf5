"""Teach the local compressor's queries to read: they name the character at every place of every cell.

Reading is trained before the language model takes part: answers teach an encoder next to nothing in the same time.
`scripts/train_reader.py` runs it, and measures it on held-out pages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from slime_vlm.model.character_naming import CharacterNames, NamedCharacters, name_characters
from slime_vlm.model.line_queries import LINES, LineQueries
from slime_vlm.model.recogniser_encoder import RecogniserEncoder
from slime_vlm.model.tiling import TileGrid, choose_grid
from slime_vlm.processing.view_cutting import cut_views
from slime_vlm.training.pages.character_cells import (
    NOTHING,
    NUM_CHARACTER_IDS,
    CharacterCells,
    cells_right,
    character_cells,
    character_ids,
    characters_of,
)

if TYPE_CHECKING:
    from slime_vlm.pages.readable import ReadablePage

SLOTS = 8
"""Characters of a cell at most."""


class PageReader(nn.Module):
    """The parts of SliME that read tiles, under the names that they have in `SlimeModel`.

    Args:
        vision_tower: The encoder.
        cell: Side of a cell in pixels.
        margin: Pixels that a view shows beyond its tile, at every edge.
        hidden: Width of a place's vector.
        context: Blocks of `LineContext`.
    """

    def __init__(
        self,
        vision_tower: RecogniserEncoder,
        *,
        cell: int = 24,
        margin: int = 8,
        hidden: int = 256,
        context: int = 0,
    ) -> None:
        super().__init__()
        down, right = vision_tower.config.map_stride
        self.vision_tower = vision_tower
        self.local_compressor = LineQueries(
            dim=vision_tower.config.stage_widths[-1],
            hidden=hidden,
            cell=(cell // down, cell // right),
            margin=(margin // down, margin // right),
            context=context,
        )
        self.character_names = CharacterNames(hidden=hidden, num_characters=NUM_CHARACTER_IDS)

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
        """Return the logits [T, rows, places, LINES, characters] of what `early_map` gives with as many blocks."""
        last = self._last_stage
        return self.character_names(self.local_compressor(last[len(last) - blocks :](early_map)))


@torch.no_grad()
def start_from_tiles(reader: PageReader, last_map: Tensor, ids: Tensor) -> None:
    """Fit what is new in a reader to some tiles: the channels' spreads, and how frequent every character is.

    Frequencies would otherwise be what the first hundred steps learn.

    Args:
        reader: A reader that has not been trained.
        last_map: [T, C_i, h, w], see `PageReader.early_map`.
        ids: [T, rows, places, LINES], see `LabelledTiles`.
    """
    reader.local_compressor.fit(last_map)
    counts = torch.stack([ids[..., k].flatten().bincount(minlength=NUM_CHARACTER_IDS) for k in range(LINES)]) + 1.0
    reader.character_names.bias.copy_((counts / counts.sum(dim=-1, keepdim=True)).log())


def reading_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Negative log-probability of all labels, for each character that is shown.

    Args:
        logits: [..., characters].
        ids: int64 [...].
    """
    loss = F.cross_entropy(logits.flatten(0, -2).float(), ids.flatten(), reduction="sum")
    return loss / (ids != NOTHING).sum().clamp(min=1)


def character_places(
    boxes: np.ndarray, page_size: tuple[int, int], grid: TileGrid, side: int, places: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return in which row of cells and at which place the middle of every character lies, float [N] both.

    Args:
        boxes: float32 [N, 4], x0, y0, x1, y1 of every character in page pixels.
        page_size: (height, width) of the page in pixels.
        grid: The page's tile grid (`choose_grid`).
        side: Rows of cells of a tile.
        places: Places of a tile from left to right.
    """
    y = (boxes[:, 1] + boxes[:, 3]) / 2 * (grid.scaled_height / page_size[0]) + grid.top
    x = (boxes[:, 0] + boxes[:, 2]) / 2 * (grid.scaled_width / page_size[1]) + grid.left
    return y * side / grid.tile_size, x * places / grid.tile_size


def place_labels(
    characters: str, boxes: np.ndarray, page_size: tuple[int, int], grid: TileGrid, side: int, places: int
) -> np.ndarray:
    """Label the places of a page: a character belongs where its middle is.

    Args:
        characters: All characters of the page.
        boxes: See `character_places`, and so on.
        page_size: (height, width) of the page in pixels.
        grid: The page's tile grid.
        side: Rows of cells of a tile.
        places: Places of a tile from left to right.

    Returns:
        int64 [grid.rows * side, grid.cols * places, LINES]. Of the lines that a cell holds the upper one is the first;
        of two characters at one place the right one is left out, and lines beyond the second are.
    """
    rows, cols = grid.rows * side, grid.cols * places
    y, x = character_places(boxes, page_size, grid, side, places)
    row, place = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    inside = (row >= 0) & (row < rows) & (place >= 0) & (place < cols)
    row, place, y, x, ids = (values[inside] for values in (row, place, y, x, character_ids(characters)))
    cell = row * cols + place // (places // side)
    # From top to bottom within a cell: a line ends where the next middle is a quarter of a row lower.
    order = np.lexsort((y, cell))
    begins = np.diff(y[order], prepend=-np.inf) > 0.25
    begins[1:] &= cell[order][1:] == cell[order][:-1]
    begins[0:1] = False
    counted = np.cumsum(begins)
    line = np.empty(len(order), np.int64)
    line[order] = counted - counted[np.searchsorted(cell[order], cell[order])] if len(order) else counted
    labels = np.zeros((rows, cols, LINES), np.int64)
    # From right to left, so that the left one stays.
    for k in np.argsort(-x, kind="stable"):
        if line[k] < LINES:
            labels[row[k], place[k], line[k]] = ids[k]
    return labels


@dataclass
class LabelledTiles:
    """The tiles of a page, with what their places show.

    Attributes:
        views: uint8 [T, P, P, 3].
        ids: int64 [T, rows, places, LINES].
        cells: The characters of every cell in the order of the page.
        grid: (rows, columns) of tiles.
        words: The words of the page.
        at: int64 [N] each, row of cells and place of every character of the page.
    """

    views: Tensor
    ids: Tensor
    cells: CharacterCells
    grid: tuple[int, int]
    words: list[str]
    at: tuple[np.ndarray, np.ndarray]

    def pixels(self, index: Tensor) -> Tensor:
        """Return some tiles as the encoder takes them: float32 [t, 3, P, P]."""
        return self.views[index].permute(0, 3, 1, 2).float() / 127.5 - 1.0

    def chosen(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw some tiles by how many characters they show: their pixels and ids."""
        shown = (self.ids > 0).flatten(1).sum(dim=1).numpy() + 0.5
        count = min(count, len(shown))
        index = torch.from_numpy(rng.choice(len(shown), count, replace=False, p=shown / shown.sum()))
        return self.pixels(index), self.ids[index]


def labelled_tiles(
    page: ReadablePage, *, view_size: int, max_tiles: int, cell: int = 24, place: int = 4, margin: int = 8
) -> LabelledTiles:
    """Cut a page into tiles as the image processor does, and label them.

    Args:
        page: The page.
        view_size: Side P of a view: a tile and its margins.
        max_tiles: Most tiles of a page.
        cell: Side of a cell in pixels.
        place: Width of a place in pixels.
        margin: Pixels that a view shows beyond its tile, at every edge.
    """
    height, width = page.image.shape[:2]
    grid = choose_grid(height, width, view_size, max_tiles, margin)
    views = np.stack(list(cut_views(Image.fromarray(page.image), grid, Image.Resampling.BICUBIC, "local")))
    side, places = grid.tile_size // cell, grid.tile_size // place
    cells = character_cells(page.characters, page.boxes, (height, width), grid, side)
    labels = place_labels(page.characters, page.boxes, (height, width), grid, side, places)
    ids = labels.reshape(grid.rows, side, grid.cols, places, LINES).swapaxes(1, 2).reshape(-1, side, places, LINES)
    words = [word for text in page.line_texts() for word in text.split()]
    y, x = character_places(page.boxes, (height, width), grid, side, places)
    at = (np.floor(y).astype(np.int64), np.floor(x).astype(np.int64))
    return LabelledTiles(torch.from_numpy(views), torch.from_numpy(ids), cells, (grid.rows, grid.cols), words, at)


@torch.inference_mode()
def read_page(
    reader: PageReader, page: LabelledTiles, *, whole: bool = False, tiles_per_chunk: int = 4
) -> NamedCharacters:
    """Read a page.

    Args:
        reader: The model.
        page: The page.
        whole: Whether to read all tiles. Otherwise those without labels are taken as blank.
        tiles_per_chunk: Tiles that are read at once.
    """
    shown = ((page.ids > 0).flatten(1).any(dim=1) | whole).nonzero()[:, 0]
    probs = torch.zeros(*page.ids.shape, NUM_CHARACTER_IDS)
    for index in shown.split(tiles_per_chunk):
        probs[index] = reader(reader.early_map(page.pixels(index))).softmax(dim=-1)
    stitched = probs.unflatten(0, page.grid).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return name_characters(stitched)


def words_of_raster(ids: np.ndarray) -> list[str]:
    """Return the words that the cells of every row spell, an empty cell being a space: int64 [rows, columns, slots]."""
    return [word for row in ids for word in "".join(characters_of(cell) or " " for cell in row.tolist()).split()]


def reading_score(reader: PageReader, page: LabelledTiles) -> dict[str, int]:
    """Count cells that show something and those read right, as `cells_right` judges. Blank tiles are not read.

    Returns:
        "cells", "right", the same for cells of at most three characters ("short", "short_right"), "exact", cells
        whose characters by their middles alone are named; "words" between spaces, and those that are spelled ("whole").
    """
    shape = (page.cells.rows, page.cells.cols)
    predicted = read_page(reader, page).cells(shape, SLOTS)
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
        "words": len(page.words),
        "whole": (Counter(page.words) & Counter(words_of_raster(predicted))).total(),
    }
