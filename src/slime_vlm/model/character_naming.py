"""Which characters the places of a page's cells show.

Deviation: not in the paper. An option for small models that read pages, see `line_queries`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slime_vlm.model.alike_characters import told_apart
from slime_vlm.model.line_queries import LINES
from slime_vlm.model.stray_spaces import spaces_in_numbers, spaces_in_words

_SEEN = 0.02
"""Least probability of a character at a place that is looked at."""

_ENOUGH = 0.15
"""Least sum of a character's probabilities at a place and those around it. It is far below a half: reading errors are
characters left out more often than characters made up, and an unsure one is better than a gap (docs/log.md)."""

_AGAIN_BESIDE = 0.9
"""Least probability left of a character right beside the same one. Most of these are one seen twice."""

_AGAIN_ABOVE = 0.35
"""The same for one right above or below, where the lines of dense print often have the same character."""

_AROUND = [(0, 0), (-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
_BESIDE = 5  # of these, the place itself and those above, below, left and right of it
_ABOVE = [(down, right) for down, right in _AROUND if down]

_FAR = 7
"""Places between the middles of two characters that belong together at most: two wide letters of print of 30 px."""

_FAR_LETTERS = 12
"""The same for two letters. Titles are in larger print, and hardly a column of a table holds single letters."""

_GAP = 18
"""Places between two characters of a line at most: three cells."""


class CharacterNames(nn.Module):
    """Logits of the characters of a place.

    Args:
        hidden: Width of a place's vector.
        num_characters: Characters, nothing (id 0) and any other among them.
    """

    def __init__(self, *, hidden: int, num_characters: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, num_characters, bias=False)
        self.bias = nn.Parameter(torch.zeros(LINES, num_characters))
        nn.init.normal_(self.linear.weight, std=0.3 * hidden**-0.5)

    def forward(self, places: Tensor) -> Tensor:
        """Return logits [..., LINES, characters] for [..., LINES, hidden]."""
        return self.linear(places) + self.bias


@dataclass
class NamedCharacters:
    """Characters that were found on a page, from left to right.

    Attributes:
        ids: int64 [n].
        rows: int64 [n] row of cells.
        places: int64 [n] place in the row.
        lines: int64 [n] line within its cell.
        probs: float32 [n] sum of the probabilities that speak for it, at most 1.
        num_places: Places of a row.
    """

    ids: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    lines: np.ndarray
    probs: np.ndarray
    num_places: int

    def as_printed(self, characters: str) -> NamedCharacters:
        """Return the characters as their lines suggest that they were printed: see the three steps.

        Args:
            characters: Characters of the ids 1, 2 and so on, the space among them.
        """
        spaced = self.with_gaps(characters.index(" ") + 1, are_letters(characters))
        return spaced.without_stray_spaces(characters).told_apart(characters)

    def with_gaps(self, space: int, letters: np.ndarray) -> NamedCharacters:
        """Return the same with a space before every character that stands far from the one to its left.

        Columns of a table have no space between them, and the cells between them need not be empty.

        Args:
            space: Id of the space.
            letters: bool [characters] whether an id is a letter, see `are_letters`.
        """
        order = np.lexsort((self.places, self.lines, self.rows))
        ids, rows, places, lines, probs = (
            part[order] for part in (self.ids, self.rows, self.places, self.lines, self.probs)
        )
        together = letters[ids]
        together[1:] &= letters[ids[:-1]]
        far = np.diff(places, prepend=0) > np.where(together, _FAR_LETTERS, _FAR)
        far[1:] &= (rows[1:] == rows[:-1]) & (lines[1:] == lines[:-1]) & (ids[:-1] != space)
        at = np.flatnonzero(far & (ids != space) & (np.arange(len(ids)) > 0))
        return NamedCharacters(
            ids=np.insert(ids, at, space),
            rows=np.insert(rows, at, rows[at]),
            places=np.insert(places, at, places[at]),
            lines=np.insert(lines, at, lines[at]),
            probs=np.insert(probs, at, 1.0).astype(np.float32),
            num_places=self.num_places,
        )

    def without_stray_spaces(self, characters: str) -> NamedCharacters:
        """Return the same without the spaces that were seen within numbers and words; see `stray_spaces`."""
        order, line, read = self._in_lines(characters)
        kept = np.ones(len(order), bool)
        for _, group in itertools.groupby(range(len(read)), key=line.__getitem__):
            indices = list(group)
            text, places = "".join(read[k] for k in indices), self.places[order[indices]].tolist()
            for space in [*spaces_in_numbers(text, places), *spaces_in_words(text)]:
                kept[order[indices[space]]] = False
        return NamedCharacters(
            self.ids[kept], self.rows[kept], self.places[kept], self.lines[kept], self.probs[kept], self.num_places
        )

    def told_apart(self, characters: str) -> NamedCharacters:
        """Return the same, where characters that look alike are told apart by their words; see `alike_characters`.

        Args:
            characters: Characters of the ids 1, 2 and so on, the space among them. Spaces have been named already.
        """
        order, line, read = self._in_lines(characters)
        ids = self.ids.copy()
        for (_, blank), group in itertools.groupby(range(len(read)), key=lambda k: (line[k], read[k] == " ")):
            word = list(group)
            if blank:
                continue
            for index, said in zip(word, told_apart("".join(read[k] for k in word)), strict=True):
                if said != read[index] and said in characters:
                    ids[order[index]] = characters.index(said) + 1
        return replace(self, ids=ids)

    def _in_lines(self, characters: str) -> tuple[np.ndarray, list[int], list[str]]:
        """Return an order line by line and from left to right, and in it the line and the text of every character."""
        order = np.lexsort((self.places, self.lines, self.rows))
        read = [characters[i - 1] if 0 < i <= len(characters) else "\0" for i in self.ids[order].tolist()]
        new = np.diff(self.rows[order], prepend=-1).astype(bool) | np.diff(self.lines[order], prepend=-1).astype(bool)
        return order, np.cumsum(new).tolist(), read

    def cells(self, shape: tuple[int, int], slots: int) -> np.ndarray:
        """Return the characters of every cell, see `cells_and_probs`."""
        return self.cells_and_probs(shape, slots)[0]

    def cells_and_probs(self, shape: tuple[int, int], slots: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the characters of every cell, line by line, from left to right, and their probabilities.

        Args:
            shape: (rows, columns) of the page's cells.
            slots: Characters of a cell at most; more are cut off.

        Returns:
            int64 and float32 [rows, columns, slots], 0 for nothing.
        """
        raster = np.zeros((shape[0] * shape[1], slots), np.int64)
        probs = np.zeros(raster.shape, np.float32)
        per_cell = self.num_places // shape[1]
        cell = self.rows * shape[1] + self.places // per_cell
        # Stable: a space stands before the character at whose place it is.
        order = np.lexsort((self.places, self.lines, cell))
        cell = cell[order]
        slot = np.arange(len(cell)) - np.searchsorted(cell, cell)
        fits = slot < slots
        raster[cell[fits], slot[fits]] = self.ids[order][fits]
        probs[cell[fits], slot[fits]] = self.probs[order][fits]
        return raster.reshape(*shape, slots), probs.reshape(*shape, slots)


def are_letters(characters: str) -> np.ndarray:
    """Return whether every character id is a letter: nothing, the characters from id 1 on, and any other."""
    return np.array([False, *map(str.isalpha, characters), False])


def name_characters(probs: Tensor) -> NamedCharacters:
    """Find the characters of a page from the probabilities of its places.

    A character whose middle is near the edge of a place has some of its probability on either side, so what counts is
    the sum around a place. The most probable ones come first. What has been used for one counts no more for another,
    be it the same character or another reading of the same ink.

    Args:
        probs: float32 [rows, places, LINES, characters]; id 0 is nothing.
    """
    dense = probs.numpy()
    seen = np.argwhere(dense[..., 1:] > _SEEN)
    # What is left of the probability of every (row, place, character), and the line that it was first seen on.
    left: dict[tuple[int, int, int], float] = {}
    lines: dict[tuple[int, int, int], int] = {}
    readings: dict[tuple[int, int], list[int]] = {}
    for (row, place, line, index), value in zip(seen.tolist(), dense[..., 1:][tuple(seen.T)].tolist(), strict=True):
        key = (row, place, index + 1)
        if key not in left:
            lines[key] = line
            readings.setdefault(key[:2], []).append(key[2])
        left[key] = left.get(key, 0.0) + value
    named: set[tuple[int, int, int]] = set()
    found: list[tuple[int, int, int, int, float, float]] = []
    for key in sorted(left, key=lambda k: -left[k]):
        row, place, index = key
        while left[key] > _SEEN:
            if left[key] < _AGAIN_BESIDE and any((row, place + right, index) in named for right in (-1, 0, 1)):
                break
            if left[key] < _AGAIN_ABOVE and any((row + down, place + right, index) in named for down, right in _ABOVE):
                break
            around = [
                near for down, right in _AROUND if left.get(near := (row + down, place + right, index), 0.0) > 0.0
            ]
            total = sum(left[near] for near in around)
            if total < _ENOUGH:
                break
            height, used = _use(left, around, 1.0)
            others = [
                (row + down, place + right, other)
                for down, right in _AROUND[:_BESIDE]
                for other in readings.get((row + down, place + right), ())
                if other != index
            ]
            _use(left, others, 1.0 - used)
            named.add(key)
            found.append((place, index, lines[key], row, height / used, min(1.0, total)))
    found.sort()
    return _in_rows(found, dense.shape[1])


def _use(left: dict[tuple[int, int, int], float], keys: list[tuple[int, int, int]], most: float) -> tuple[float, float]:
    """Use up probabilities in order, `most` in all. Return the sum of their rows, weighted by them, and their sum."""
    height, used = 0.0, 0.0
    for key in keys:
        part = min(most - used, left[key])
        left[key] -= part
        used += part
        height += part * key[0]
    return height, used


def _in_rows(found: list[tuple[int, int, int, int, float, float]], num_places: int) -> NamedCharacters:
    """Give the characters of a line that runs near the edge of two rows of cells the same row, as far as it goes."""
    # Open lines: their height, the place of the last character, and its row.
    tracks: list[list[float]] = []
    rows = []
    for place, _, _, row, height, _ in found:
        tracks = [track for track in tracks if place - track[1] <= _GAP]
        near = min(tracks, key=lambda track: abs(track[0] - height), default=None)
        if near is None or abs(near[0] - height) > 0.5:
            tracks.append([height, place, row])
            rows.append(row)
            continue
        near[0] += 0.15 * (height - near[0])
        near[1] = place
        if abs(near[0] - near[2]) > 0.65:
            near[2] = round(near[0])
        rows.append(int(near[2]))
    columns: list[Any] = list(zip(*found, strict=True)) if found else [[]] * 6
    return NamedCharacters(
        ids=np.array(columns[1], np.int64),
        rows=np.array(rows, np.int64),
        places=np.array(columns[0], np.int64),
        lines=np.array(columns[2], np.int64),
        probs=np.array(columns[5], np.float32),
        num_places=num_places,
    )
