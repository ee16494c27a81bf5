"""Words of a page from the characters that its local tokens name, and words of a question, by the same rules.

Deviation: not in the paper. An option for small models that read pages: a token shows a few characters, cut anywhere,
and a word that training has never seen is known only by its spelling. Here every token learns which whole words it
touches, and every word becomes a set of hashed n-grams, so there is no list of words.

Rules: letters are compared without case and accents; spaces, an empty cell, the end of a row of cells and marks such as
":" or "," end a word; other marks ("-", ".", "'", "/", "&") are left out, so that "Sub-total" is "subtotal".
"""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass

import torch
from torch import Tensor

_BREAKS = frozenset(' \t\n:;,=()[]{}<>|?!"_*\u00a1\u00bf\u00ab\u00bb\u201c\u201d\u201e\u2026\u2013\u2014\u2022')
_LETTERS = string.ascii_lowercase + string.digits

BREAK = 0
"""Class of a character that ends a word."""

SILENT = 1
"""Class of a character that is left out of its word."""

_OTHER_LETTER = 2
_FIRST_LETTER = 3
_START, _END = 60, 61
_CODES = 64
GRAM_SIZES = (2, 3, 4)


def character_classes(characters: str) -> Tensor:
    """Return the class of every character id, int64 [len(characters) + 2].

    Args:
        characters: Characters of the ids 1, 2 and so on. Id 0 is nothing, the id after the last any other character.

    Returns:
        `BREAK`, `SILENT`, or the code of a letter or digit. Other characters have the code of an unknown letter.
    """
    return torch.tensor([BREAK, *map(_class_of, characters), _OTHER_LETTER])


def _class_of(character: str) -> int:
    if character in _BREAKS or character.isspace():
        return BREAK
    plain = unicodedata.normalize("NFKD", character)[0].lower()
    if plain in _LETTERS:
        return _FIRST_LETTER + _LETTERS.index(plain)
    return _OTHER_LETTER if character.isalpha() else SILENT


@dataclass
class Words:
    """The words of a stream of characters.

    Attributes:
        grams: int64 [G] buckets of the n-grams of all words, word after word.
        starts: int64 [W] index of the first n-gram of every word.
        word_of: int64 [N] word of every character of the stream, -1 for none.
    """

    grams: Tensor
    starts: Tensor
    word_of: Tensor

    def __len__(self) -> int:
        return len(self.starts)


def find_words(classes: Tensor, begins: Tensor, buckets: int) -> Words:
    """Find the words of a stream of characters and hash their n-grams. There is no loop over characters.

    Args:
        classes: int64 [N], see `character_classes`.
        begins: bool [N], True where a word cannot go on from the character before: after a gap or in a new row.
        buckets: Number of buckets, a power of two.

    Example: "S/N 7" has the words "sn" and "7". With the marks of a word's ends, "^sn$" has the n-grams "^s", "sn",
    "n$", "^sn", "sn$" and "^sn$".
    """
    spoken = (classes >= _OTHER_LETTER).nonzero()[:, 0]
    # What has ended words before each character; two characters belong together when it is the same for both.
    ended = begins.long().cumsum(0) + (classes == BREAK).long().cumsum(0)
    ended = ended[spoken]
    first = torch.ones_like(spoken, dtype=torch.bool)
    first[1:] = ended[1:] != ended[:-1]
    word = first.long().cumsum(0) - 1
    count = int(first.sum())
    word_of = torch.full_like(classes, -1)
    word_of[spoken] = word

    # "^word$" for every word, end to end. The k-th word begins 2k marks late.
    sequence = classes.new_full((len(spoken) + 2 * count,), _END)
    owner = torch.empty_like(sequence)
    place = torch.arange(len(spoken), device=classes.device) + 2 * word + 1
    sequence[place] = classes[spoken]
    sequence[place[first] - 1] = _START
    lengths = torch.bincount(word, minlength=count) + 2
    owner = torch.repeat_interleave(torch.arange(count, device=classes.device), lengths)

    grams, owners = [], []
    for size in GRAM_SIZES:
        ends = len(sequence) - size + 1
        if ends <= 0:
            continue
        value = torch.ones_like(sequence[:ends])
        for shift in range(size):
            value = value * _CODES + sequence[shift : shift + ends]
        within = owner[:ends] == owner[size - 1 :]
        grams.append(_bucket(value[within], buckets))
        owners.append(owner[:ends][within])
    all_grams = torch.cat(grams) if grams else sequence
    all_owners = torch.cat(owners) if owners else sequence
    order = all_owners.argsort(stable=True)
    sizes = torch.bincount(all_owners, minlength=count)
    return Words(all_grams[order], sizes.cumsum(0) - sizes, word_of)


def _bucket(value: Tensor, buckets: int) -> Tensor:
    """Hash n-grams by multiplication, the upper bits of 32 (Knuth)."""
    bits = buckets.bit_length() - 1
    return ((value * 2654435761) & 0xFFFFFFFF) >> (32 - bits)


@dataclass
class CellWords:
    """The words that the cells of some pages touch.

    Attributes:
        words: The words of all pages.
        cells: int64 [P] index of a cell among all cells of the batch, for every pair of a cell and a word.
        word: int64 [P] the word of that pair.
    """

    words: Words
    cells: Tensor
    word: Tensor


def words_of_cells(ids: Tensor, classes: Tensor, buckets: int) -> CellWords:
    """Assemble words across the cells of every row, and give every cell the words that it touches.

    Args:
        ids: int64 [..., R, C, S] character ids of every cell in reading order, 0 for nothing; any leading dimensions.
        classes: See `character_classes`.
        buckets: See `find_words`.
    """
    columns, slots = ids.shape[-2:]
    flat = ids.reshape(-1, slots)
    shown = flat != 0
    cell, _ = at = shown.nonzero(as_tuple=True)
    empty = ~shown.any(dim=1)
    # A gap has been crossed, or a row begun, where this count changes between two characters.
    crossed = empty.long().cumsum(0) + torch.arange(len(flat), device=ids.device).div(columns, rounding_mode="floor")
    begins = torch.zeros_like(cell, dtype=torch.bool)
    begins[1:] = crossed[cell[1:]] != crossed[cell[:-1]]
    words = find_words(classes[flat[at]], begins, buckets)
    # The characters of a cell and of a word both stand together, so a new pair begins where either changes.
    inside = words.word_of >= 0
    cell, word = cell[inside], words.word_of[inside]
    new = torch.ones_like(inside[inside])
    new[1:] = (cell[1:] != cell[:-1]) | (word[1:] != word[:-1])
    return CellWords(words, cell[new], word[new])


def words_of_text(ids: Tensor, classes: Tensor, buckets: int) -> Words:
    """Find the words of a text given as character ids [N]."""
    return find_words(classes[ids], torch.zeros_like(ids, dtype=torch.bool), buckets)
