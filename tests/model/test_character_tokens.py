"""Questions, words and answers are found from the ids of a row (model/character_tokens.py)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slime_vlm.errors import InputError
from slime_vlm.model.cell_words import character_classes
from slime_vlm.model.character_tokens import CharacterText, CharacterTokens, padded_groups, read_text

CHARACTERS = " -:=0123456789abcdefghijklmnopqrstuvwxyz"
TOKENS = CharacterTokens(len(CHARACTERS))
IMAGE = TOKENS.vocabulary
MARKS = {
    "<": TOKENS.begin,
    "U": TOKENS.user,
    "A": TOKENS.assistant,
    ">": TOKENS.end,
    "#": IMAGE,
    "~": 0,
    "N": TOKENS.not_there,
}


def ids_of(*rows: str) -> Tensor:
    """One id a character; see `MARKS` for those that are none."""
    return torch.tensor([[MARKS.get(c) or (0 if c == "~" else CHARACTERS.index(c) + 1) for c in row] for row in rows])


def read(*rows: str) -> CharacterText:
    return read_text(ids_of(*rows), TOKENS, character_classes(CHARACTERS), 64)


def test_a_row_by_hand() -> None:
    text = "<U##sub-total due:A4 1>"
    found = read(text)
    # The last letters of "subtotal" and "due" carry the words 1 and 2; all else of the question is dropped.
    assert "".join(c for c, w in zip(text, found.word[0].tolist(), strict=True) if w) == "le"
    assert found.word[0][found.word[0] > 0].tolist() == [1, 2]
    assert "".join(c for c, d in zip(text, found.dropped[0].tolist(), strict=True) if d) == "sub-tota du:"
    assert found.step[0].tolist() == [0] * 18 + [1, 2, 3, 4, 0]
    assert found.turn[0].tolist() == [0, 1, 0, 0] + [1] * 19
    assert (found.row_of.tolist(), found.turn_of.tolist()) == ([0, 0], [1, 1])


def test_rows_turns_and_padding() -> None:
    rows = ("~~~<U#ab cdA1>UefA", "<U#gA23~~~~~~~~~~~", "<U##hi##jkAN>~~~~~")
    found = read(*(row.ljust(19, "~") for row in rows))
    words = found.of_turns()
    assert words.shape == (3, 3, 2)
    assert words[0].tolist() == [[0, 0], [1, 2], [3, 0]]
    assert words[1].tolist() == [[0, 0], [4, 0], [0, 0]]
    # An image within a question ends a word.
    assert words[2].tolist() == [[0, 0], [5, 6], [0, 0]]
    assert found.step[2].tolist()[10:13] == [1, 2, 0]
    for k, row in enumerate(rows):
        alone = read(row.strip("~"))
        begin = len(row) - len(row.lstrip("~"))
        part = slice(begin, begin + alone.word.shape[1])
        assert torch.equal(alone.dropped[0], found.dropped[k, part])
        assert torch.equal(alone.step[0], found.step[k, part])
        assert torch.equal(alone.word[0] > 0, found.word[k, part] > 0)


def test_columns_of_images_break_words_in_every_row() -> None:
    # The columns of images are left out of the search, and "ab" and "cd" would stand side by side.
    found = read("<Uab##cdA")
    assert len(found.words) == 2
    assert len(read("<Uab").words) == 1
    assert len(read("####").words) == 0


def test_last_columns() -> None:
    found = read("<U#ab cdA12")
    cut = found.last(3)
    assert cut.step.tolist() == [[1, 2, 3]]
    assert len(cut.words) == 2
    assert found.last(5).word[0].tolist() == [0, 2, 0, 0, 0]
    with pytest.raises(InputError, match="within a word"):
        found.last(4)


def test_padded_groups_by_hand() -> None:
    found = padded_groups(torch.tensor([0, 0, 2]), torch.tensor([7, 8, 9]), 3)
    assert found.tolist() == [[7, 8], [0, 0], [9, 0]]
    assert padded_groups(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), 2).shape == (2, 1)
