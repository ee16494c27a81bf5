"""Which characters every token of a page shows, in an open vocabulary, and whether a reading of them is right.

A token stands for a square cell of the page. Its label is the ordered list of the characters whose middles lie in the
cell, line by line. Cells are not aligned with text, so characters near an edge are in doubt: a reading is right when
one of the two cells names them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slime_vlm.model.tiling import TileGrid

# Printable Latin-1, then what Windows puts in its gap: quotes, dashes, the euro sign, the ellipsis and others.
CHARACTERS = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]))
CHARACTERS += bytes(range(0x80, 0xA0)).decode("cp1252", errors="ignore")

NOTHING = 0
OTHER = len(CHARACTERS) + 1
"""Id of any character that is not in `CHARACTERS`."""

NUM_CHARACTER_IDS = len(CHARACTERS) + 2

EDGE = 3.0
"""Characters whose middles are so many pixels from an edge, or fewer, are in doubt."""

_ID_OF = {character: index for index, character in enumerate(CHARACTERS, start=1)}
LOOK_ALIKES = {"\u00a0": " ", "\u00ad": "-", "\u2010": "-", "\u2011": "-", "\u2212": "\u2013"}
"""Spaces, hyphens and the minus sign that look the same as one of `CHARACTERS`."""

_ID_OF |= {alike: _ID_OF[plain] for alike, plain in LOOK_ALIKES.items()}


def character_ids(text: str) -> np.ndarray:
    """Return the id of every character, int64 [len(text)]."""
    return np.array([_ID_OF.get(character, OTHER) for character in text], np.int64)


def characters_of(ids: Sequence[int]) -> str:
    """Spell ids, those of nothing left out and "\N{REPLACEMENT CHARACTER}" for other characters."""
    return "".join("\N{REPLACEMENT CHARACTER}" if i == OTHER else CHARACTERS[i - 1] for i in ids if i != NOTHING)


@dataclass(frozen=True)
class Member:
    """A character that a cell shows or may show.

    Attributes:
        id: Its id.
        index: Its index on the page.
        inside: Whether its middle lies in the cell.
        doubt: The edge that its middle is near: "left", "right" or "across" (top or bottom); "" for none.
    """

    id: int
    index: int
    inside: bool
    doubt: str = ""


@dataclass
class CharacterCells:
    """Labels of a raster of cells.

    Attributes:
        members: For every cell in raster order its characters in reading order.
        rows: Cells from top to bottom.
        cols: Cells from left to right.
        num_characters: Characters of the page.
    """

    members: list[list[Member]]
    rows: int
    cols: int
    num_characters: int

    def strings(self) -> list[list[int]]:
        """Return the ids of the characters whose middles lie in each cell."""
        return [[member.id for member in cell if member.inside] for cell in self.members]


def character_cells(
    characters: str,
    boxes: np.ndarray,
    page_size: tuple[int, int],
    grid: TileGrid,
    side: int,
    edge: float = EDGE,
) -> CharacterCells:
    """Label the stitched raster of a page's tiles.

    Args:
        characters: All characters of the page.
        boxes: float32 [N, 4], x0, y0, x1, y1 of every character in page pixels; those of a line share their height.
        page_size: (height, width) of the page in pixels.
        grid: The page's tile grid (`choose_grid`).
        side: Tokens along one side of a tile.
        edge: See `EDGE`.
    """
    rows, cols, size = grid.rows * side, grid.cols * side, grid.tile_size / side
    y_scale, x_scale = grid.scaled_height / page_size[0], grid.scaled_width / page_size[1]
    y = (boxes[:, 1] + boxes[:, 3]) / 2 * y_scale + grid.top
    x = (boxes[:, 0] + boxes[:, 2]) / 2 * x_scale + grid.left
    heights = (boxes[:, 3] - boxes[:, 1]) * y_scale
    ids = character_ids(characters)
    found: list[list[Member]] = [[] for _ in range(rows * cols)]
    for index in range(len(characters)):
        for row, col, doubt, inside in _cells_at(float(y[index]), float(x[index]), size, edge):
            if 0 <= row < rows and 0 <= col < cols:
                found[row * cols + col].append(Member(int(ids[index]), index, inside, doubt))
    members = [_in_reading_order(cell, y, x, heights) if len(cell) > 1 else cell for cell in found]
    return CharacterCells(members, rows, cols, len(characters))


def _cells_at(y: float, x: float, size: float, edge: float) -> list[tuple[int, int, str, bool]]:
    """Cells (row, column) that show a middle or may show it, with the edge in doubt and whether it lies inside."""
    row, col = int(y // size), int(x // size)
    up, left = y - row * size, x - col * size
    down, right = size - up, size - left
    home = ""
    found = []
    if min(up, down) < edge:
        home = "across"
        found.append((row - 1 if up < down else row + 1, col, "across", False))
    if min(left, right) < edge:
        home = "left" if left < right else "right"
        found.append((row, col - 1 if left < right else col + 1, "right" if left < right else "left", False))
    return [(row, col, home, True), *found]


def _in_reading_order(cell: list[Member], y: np.ndarray, x: np.ndarray, heights: np.ndarray) -> list[Member]:
    """Sort by line, then from left to right; middles less than 0.4 of a line's height apart are one line."""
    lines: list[list[Member]] = []
    for member in sorted(cell, key=lambda member: float(y[member.index])):
        if lines and y[member.index] - y[lines[-1][0].index] < 0.4 * heights[member.index]:
            lines[-1].append(member)
        else:
            lines.append([member])
    return [member for line in lines for member in sorted(line, key=lambda member: float(x[member.index]))]


def cells_right(predicted: np.ndarray, cells: CharacterCells) -> tuple[np.ndarray, np.ndarray]:
    """Judge a reading of all cells.

    A cell is right when it names exactly its characters in order, with or without those near an edge, and when each of
    its own characters near an edge is named by it or by the cell beyond that edge. Cells outside the raster name
    nothing, so what is near its border has to be named inside.

    Args:
        predicted: int64 [rows, cols, slots] ids; what follows the first `NOTHING` does not count.
        cells: The labels.

    Returns:
        Whether each cell is right, and whether it holds a character other than a space: bool [rows, cols] both.
    """
    flat = predicted.reshape(len(cells.members), -1)
    named = np.zeros(cells.num_characters, bool)
    fits = np.zeros(len(flat), bool)
    for k, cell in enumerate(cells.members):
        ids = flat[k].tolist()
        ids = ids[: ids.index(NOTHING)] if NOTHING in ids else ids
        used = _matched(ids, cell)
        fits[k] = used is not None
        named[[cell[m].index for m in used or ()]] = True
    space = _ID_OF[" "]
    right, shows = np.zeros(len(flat), bool), np.zeros(len(flat), bool)
    for k, cell in enumerate(cells.members):
        own = [member for member in cell if member.inside]
        shows[k] = any(member.id != space for member in own)
        right[k] = fits[k] and all(named[member.index] for member in own)
    return right.reshape(cells.rows, cells.cols), shows.reshape(cells.rows, cells.cols)


def _matched(ids: list[int], cell: list[Member]) -> list[int] | None:
    """Members that ids name in order, as many as can be; None when one without doubt is left out or an id is over."""
    # best[j]: the members named by the first j ids, so far.
    best: list[list[int] | None] = [[], *[None] * len(ids)]
    for index, member in enumerate(cell):
        following: list[list[int] | None] = [None] * len(best)
        for j, path in enumerate(best):
            if path is None:
                continue
            if member.doubt and _longer(path, following[j]):
                following[j] = path
            if j < len(ids) and ids[j] == member.id and _longer([*path, index], following[j + 1]):
                following[j + 1] = [*path, index]
        best = following
    return best[-1]


def _longer(path: list[int], other: list[int] | None) -> bool:
    return other is None or len(path) > len(other)


def words_found(read: np.ndarray, words: Sequence[str]) -> list[bool]:
    """Tell which words a reading has whole, wherever they stand: a lower bound, since two lines in a cell hide both.

    Args:
        read: int64 [rows, cols, slots] ids.
        words: Words without spaces.

    Returns:
        Whether each word is spelled by neighbouring cells. They are of one row or of two rows in turn, as a line near
        their edge may be named in either; what two neighbours both name at their common edge counts once.
    """
    texts = [[characters_of(ids.tolist()) for ids in row] for row in read]
    wanted = set(words)
    found: set[str] = set()
    for upper, lower in itertools.pairwise([*texts, [""] * read.shape[1]]):
        columns = [{a, b} - {""} for a, b in zip(upper, lower, strict=True)]
        letters = set("".join(itertools.chain.from_iterable(columns)))
        found |= {word for word in wanted - found if set(word) <= letters and _spelled(word, columns)}
    return [word in found for word in words]


def _spelled(word: str, columns: Sequence[set[str]]) -> bool:
    """Whether neighbouring columns spell a word, with one of the column's texts each."""
    # How many characters the columns so far may have spelled, up to the last one's end.
    begun: set[int] = set()
    for texts in columns:
        following: set[int] = set()
        for text in texts:
            if word in text:
                return True
            following |= {n for n in range(1, min(len(text), len(word) - 1) + 1) if text.endswith(word[:n])}
            for n in begun:
                for more in (text, text[1:] if text[0] == word[n - 1] else text):
                    if more.startswith(word[n:]):
                        return True
                    if word.startswith(more, n):
                        following.add(n + len(more))
        begun = following
    return False
