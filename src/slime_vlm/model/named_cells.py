"""From the features of tiles to the characters of a page's cells, a chunk of tiles at a time.

Deviation: not in the paper. An option for small models that read pages (`SlimeConfig.characters`), see `line_queries`
and `character_naming`. Which characters a page shows is decided on the whole page, since a character at the edge of a
tile has some of its probability in the tile beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slime_vlm.model.character_naming import CharacterNames, name_characters
from slime_vlm.model.line_queries import LINES, LineQueries
from slime_vlm.model.recogniser_encoder import unfold_patches


@torch.no_grad()
def cell_probs(
    features: Tensor, patch: tuple[int, int], queries: LineQueries, names: CharacterNames, places: int
) -> Tensor:
    """Read tiles.

    Args:
        features: [T, N, C], see `recogniser_encoder.fold_patches`.
        patch: (rows, columns) of the map in a feature.
        queries: Finds lines.
        names: Names what they show.
        places: Places P of a cell from left to right.

    Returns:
        float32 [T, Q, P * LINES * characters] probabilities in the cells of every tile, row by row. They have no
        gradient: naming is decided, not weighed.
    """
    logits = names(queries(unfold_patches(features, patch)))
    probs = logits.float().softmax(dim=-1)
    return probs.unflatten(2, (-1, places)).flatten(1, 2).flatten(2)


def named_cells(
    probs: Tensor, shape: tuple[int, int], places: int, slots: int, characters: str
) -> tuple[Tensor, Tensor]:
    """Name the characters of a page.

    Args:
        probs: [L, P * LINES * characters] of all cells in the order of the page.
        shape: (rows, columns) of cells.
        places: Places P of a cell.
        slots: Characters of a cell at most.
        characters: Characters of the ids 1, 2 and so on. A space is named before one far from the one to its left.

    Returns:
        Their ids int64 [rows, columns, slots], 0 for nothing, and how certain each is, float32 in 0..1.
    """
    page = probs.float().unflatten(-1, (places, LINES, -1)).unflatten(0, shape).flatten(1, 2)
    found = name_characters(page.cpu()).as_printed(characters)
    ids, certainties = found.cells_and_probs(shape, slots)
    return torch.from_numpy(ids).to(probs.device), torch.from_numpy(certainties).to(probs.device)
