"""Dense labels of rendered pages: the content of every visual token, one small integer per vocabulary slot.

A page from `slime_vlm.pages` knows the box of every character. `tile_token_labels` labels every token of a regular
raster over the page with these slots:

    characters 1..n | offset of the first character in its run | up to two words the run spells or belongs to | role

The projector with a visual vocabulary (`SlimeConfig.projector_vocabulary`) predicts exactly these slots. So the same
labels train the vision encoder (pixels -> slots) and the language model (slots -> answers) apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from slime_vlm.errors import ConfigError

if TYPE_CHECKING:
    from slime_vlm.model.tiling import TileGrid
    from slime_vlm.pages import Page, Question

ROLES = ("blank", "key", "value", "row", "column", "cell", "label", "other")

UNKNOWN_WORD = 1
"""Id of the word of a run that belongs to something outside of the token's tile."""

OFFSET_LIMIT = 20


@dataclass(frozen=True)
class SlotVocabulary:
    """The vocabulary behind each slot of a projector that reads pages.

    Args:
        characters: Every character that a page may show.
        words: Every lower-case word that a run may belong to.
        character_slots: Number of characters that one token can name.
    """

    characters: str
    words: tuple[str, ...]
    character_slots: int = 5
    _character_id: dict[str, int] = field(init=False, repr=False, compare=False)
    _word_id: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Build the look-up tables."""
        object.__setattr__(self, "_character_id", {c: i + 1 for i, c in enumerate(self.characters)})
        object.__setattr__(self, "_word_id", {w: i + 2 for i, w in enumerate(self.words)})

    @property
    def sizes(self) -> list[int]:
        """Vocabulary size of every slot in slot order (`SlimeConfig.projector_vocabulary`)."""
        characters = [len(self.characters) + 1] * self.character_slots
        return [*characters, 1 + 2 * OFFSET_LIMIT, len(self.words) + 2, len(self.words) + 2, len(ROLES)]

    @property
    def num_slots(self) -> int:
        """Number of slots K."""
        return self.character_slots + 4

    def character_id(self, character: str) -> int:
        """Return the id of a character in a character slot; 0 (nothing) outside of the vocabulary."""
        return self._character_id.get(character, 0)

    def word_id(self, word: str) -> int:
        """Return the id of a word in a word slot.

        Raises:
            KeyError: The word is not in the vocabulary.
        """
        return self._word_id[word]


@dataclass
class TokenLabels:
    """Labels of a raster of tokens.

    Attributes:
        ids: int64 [rows, cols, K], 0 = nothing.
        run: int64 [rows, cols], the run that owns the first character in the token, -1 = none.
        character_tokens: For every run, the index (in raster order) of the token that holds each of its characters.
    """

    ids: np.ndarray
    run: np.ndarray
    character_tokens: list[np.ndarray]


def _centres(page: Page, y_scale: float, x_scale: float, y_paste: float, x_paste: float) -> tuple[np.ndarray, ...]:
    """Return y and x of every character's centre in raster pixels, its run and its index in the run: four of [M]."""
    lengths = [len(run.text) for run in page.runs]
    boxes = np.concatenate([run.boxes for run in page.runs])
    run = np.repeat(np.arange(len(lengths)), lengths)
    index = np.concatenate([np.arange(n) for n in lengths])
    y = (boxes[:, 1] + boxes[:, 3]) / 2 * y_scale + y_paste
    x = (boxes[:, 0] + boxes[:, 2]) / 2 * x_scale + x_paste
    return y, x, run, index


def tile_token_labels(
    page: Page,
    grid: TileGrid,
    vocabulary: SlotVocabulary,
    *,
    side: int,
    view_size: int,
    shift: tuple[float, float] = (0.0, 0.0),
) -> TokenLabels:
    """Label the stitched raster of a page's tiles.

    Args:
        page: The page.
        grid: Its tile grid (`choose_grid`).
        vocabulary: Slots and their vocabularies.
        side: Tokens along one side of a tile (8 for 64 local tokens, 16 for patches of a 256 px view at stride 16).
        view_size: Side of a tile in pixels.
        shift: Pixels (down, right) by which to move all characters.

    Returns:
        Labels over (rows * side, cols * side) tokens. Offsets and words are known only as far as the token's own tile
        shows them, since the encoder sees one tile at a time.
    """
    raster = (grid.rows * side, grid.cols * side)
    if not page.runs:
        return TokenLabels(np.zeros((*raster, vocabulary.num_slots), np.int64), np.full(raster, -1), [])
    y, x, run, index = _centres(
        page,
        grid.scaled_height / page.height,
        grid.scaled_width / page.width,
        grid.top + shift[0],
        grid.left + shift[1],
    )
    labels = _label(page, vocabulary, y, x, run, index, raster, view_size / side, view_size)
    for drawing in page.drawings:
        if drawing.words:
            corners = np.array(drawing.box).reshape(2, 2)
            corners *= grid.scaled_width / page.width, grid.scaled_height / page.height
            corners += grid.left, grid.top
            _name_drawing(labels.ids, vocabulary, drawing.words, corners, view_size / side)
    return labels


def _name_drawing(
    ids: np.ndarray, vocabulary: SlotVocabulary, words: tuple[str, ...], corners: np.ndarray, token_size: float
) -> None:
    """Label the tokens without text over the middle of a drawing with its words."""
    middle, half = corners.mean(0), (corners[1] - corners[0]) / 2
    rows, cols = ((np.arange(n) + 0.5) * token_size for n in ids.shape[:2])
    off = ((rows[:, None] - middle[1]) / half[1]) ** 2 + ((cols[None] - middle[0]) / half[0]) ** 2
    over = (off < 0.8) & (ids[..., -1] == 0)
    for k, word in enumerate(words[:2]):
        ids[over, vocabulary.character_slots + 1 + k] = vocabulary.word_id(word)
    ids[over, -1] = ROLES.index("label")


def global_token_labels(
    page: Page, vocabulary: SlotVocabulary, *, side: int, view_size: int, legible: float
) -> TokenLabels:
    """Label the global view (the squashed page) like a tile. Text lower than `legible` pixels keeps only its role."""
    raster = (side, side)
    if not page.runs:
        return TokenLabels(np.zeros((*raster, vocabulary.num_slots), np.int64), np.full(raster, -1), [])
    y_scale, x_scale = view_size / page.height, view_size / page.width
    y, x, run, index = _centres(page, y_scale, x_scale, 0.0, 0.0)
    labels = _label(page, vocabulary, y, x, run, index, raster, view_size / side, view_size)
    boxes = [r.boxes[0] for r in page.runs]
    readable = np.array([(b[3] - b[1]) * y_scale >= legible and x_scale / y_scale > 0.6 for b in boxes] + [False])
    labels.ids[..., :-1] *= readable[labels.run][..., None]
    return labels


def _label(
    page: Page,
    vocabulary: SlotVocabulary,
    y: np.ndarray,
    x: np.ndarray,
    run: np.ndarray,
    index: np.ndarray,
    raster: tuple[int, int],
    token_size: float,
    view_size: int,
) -> TokenLabels:
    slots, characters = vocabulary.num_slots, vocabulary.character_slots
    row = np.clip((y // token_size).astype(np.int64), 0, raster[0] - 1)
    col = np.clip((x // token_size).astype(np.int64), 0, raster[1] - 1)
    per_tile = round(view_size / token_size)
    tile = (row // per_tile) * (raster[1] // per_tile) + col // per_tile

    # The words of a run are known in a tile that shows the runs that spell them. Drawings have words of their own.
    tiles_of_run: list[set[int]] = [set() for _ in page.runs]
    for r, t in zip(run.tolist(), tile.tolist(), strict=True):
        tiles_of_run[r].add(t)

    order = np.lexsort((index, x, col, row))
    token = row * raster[1] + col
    character_tokens = np.split(token, np.cumsum([len(r.text) for r in page.runs])[:-1])
    token, run, index, tile = token[order], run[order], index[order], tile[order]
    first = np.r_[True, token[1:] != token[:-1]]
    start = np.flatnonzero(first)
    slot = np.arange(len(token)) - np.repeat(start, np.diff(np.r_[start, len(token)]))

    ids = np.zeros((raster[0] * raster[1], slots), np.int64)
    text = "".join(r.text for r in page.runs)
    begin = np.cumsum([0, *[len(r.text) for r in page.runs]])[:-1]
    char_ids = np.array([vocabulary.character_id(c) for c in text], np.int64)[begin[run] + index]
    fits = slot < characters
    ids[token[fits], slot[fits]] = char_ids[fits]

    owner = np.full(raster[0] * raster[1], -1)
    owner[token[start]] = run[start]
    for i in start.tolist():
        r, t, p = int(run[i]), int(tile[i]), int(index[i])
        item = page.runs[r]
        label = ids[token[i]]
        if item.role != "other":
            in_tile = (run == r) & (tile == t)
            begins_here = bool((index[in_tile] == 0).any())
            offset = p if begins_here else p - int(index[in_tile].min())
            label[characters] = 1 + min(offset, OFFSET_LIMIT - 1) + (0 if begins_here else OFFSET_LIMIT)
        for k, word in enumerate(item.words[:2]):
            known = not item.word_runs or item.word_runs[k] == r or t in tiles_of_run[item.word_runs[k]]
            label[characters + 1 + k] = vocabulary.word_id(word) if known else UNKNOWN_WORD
        label[-1] = ROLES.index(item.role)
    return TokenLabels(ids.reshape(*raster, slots), owner.reshape(raster), character_tokens)


def asked_tokens(page: Page, labels: TokenLabels, vocabulary: SlotVocabulary, question: Question) -> np.ndarray:
    """Return the tokens that a question is about, bool [L]: those of its key and value, or of the drawing it names."""
    run = labels.run.reshape(-1)
    about: np.ndarray = np.isin(run, [*question.key_runs, *question.value_runs])
    for r in question.value_runs:
        named = page.runs[r]
        if named.words and not named.word_runs:
            words = [vocabulary.word_id(word) for word in named.words[:2]]
            held = labels.ids.reshape(len(run), -1)[:, -3 : -3 + len(words)]
            about |= (run < 0) & (held == words).all(-1)
    return about


def cell_labels(page: Page, grid: TileGrid, vocabulary: SlotVocabulary, *, side: int, view_size: int) -> np.ndarray:
    """Label every small cell of the stitched tiles with its character: int64 [rows * side, cols * side], 0 = none.

    These labels are unambiguous and much easier to learn than the slots of a token. An encoder with random weights
    learned to read only with them.
    """
    cell = view_size / side
    cells = np.zeros((grid.rows * side, grid.cols * side), np.int64)
    y_scale, x_scale = grid.scaled_height / page.height, grid.scaled_width / page.width
    for run in page.runs:
        top, bottom = (float(run.boxes[0, i]) * y_scale + grid.top for i in (1, 3))
        edges = np.append(run.boxes[:, 0], run.boxes[-1, 2]) * x_scale + grid.left
        # The top and bottom fifths of a line's box are mostly empty.
        first_row, last_row = _covered(top + 0.2 * (bottom - top), bottom - 0.2 * (bottom - top), cell, cells.shape[0])
        first_col, last_col = _covered(edges[0], edges[-1], cell, cells.shape[1])
        columns = np.arange(first_col, last_col)
        index = np.clip(np.searchsorted(edges, (columns + 0.5) * cell, side="right") - 1, 0, len(run.text) - 1)
        ids = np.array([vocabulary.character_id(c) for c in run.text], np.int64)
        cells[first_row:last_row, first_col:last_col] = ids[index]
    return cells


def _covered(start: float, end: float, cell: float, limit: int) -> tuple[int, int]:
    """Return the range of cells whose centres lie between two coordinates."""
    return max(0, int(np.ceil(start / cell - 0.5))), min(limit, int(np.floor(end / cell - 0.5)) + 1)


def page_vocabulary(slot_sizes: Sequence[int] | None = None) -> SlotVocabulary:
    """Return the slots of a projector that reads rendered pages.

    Args:
        slot_sizes: `projector_vocabulary` of an existing model; None for a new one.

    Raises:
        ConfigError: A model with these slots does not read rendered pages.
    """
    from slime_vlm.pages import characters, words

    new = SlotVocabulary(characters=characters(), words=tuple(words()))
    if slot_sizes is None:
        return new
    # Models differ in the number of characters per token.
    vocabulary = replace(new, character_slots=new.character_slots + len(slot_sizes) - new.num_slots)
    if vocabulary.sizes != list(slot_sizes):
        raise ConfigError(
            f"this model does not read rendered pages: its projector_vocabulary is {list(slot_sizes)}, expected "
            f"{new.sizes}; a recipe sets it by 'projector_vocabulary: pages'"
        )
    return vocabulary
