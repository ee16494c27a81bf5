"""Words across the cells of a page, their n-grams, and where runs of text begin."""

import torch

from slime_vlm.model.cell_runs import LEAST, MOST, run_offsets
from slime_vlm.model.cell_words import BREAK, SILENT, character_classes, find_words, words_of_cells, words_of_text
from slime_vlm.model.word_embedding import WordEmbedding

CHARACTERS = "".join(map(chr, range(0x20, 0x7F))) + "äßé€"
CLASSES = character_classes(CHARACTERS)
BUCKETS = 2**14


def ids_of(text: str) -> torch.Tensor:
    return torch.tensor([CHARACTERS.index(character) + 1 for character in text], dtype=torch.long)


def cells_of(rows: list[list[str]], slots: int = 5) -> torch.Tensor:
    cells = torch.zeros(len(rows), len(rows[0]), slots, dtype=torch.long)
    for row, texts in zip(cells, rows, strict=True):
        for cell, text in zip(row, texts, strict=True):
            cell[: len(text)] = ids_of(text)
    return cells


def grams_of(words, k: int) -> set[int]:
    ends = [*words.starts.tolist()[1:], len(words.grams)]
    return set(words.grams[words.starts[k] : ends[k]].tolist())


def test_hash_by_hand() -> None:
    # "^sn$": ^ is 60, s is 3 + 18 = 21, n is 3 + 13 = 16, $ is 61; a leading 1 tells the lengths apart.
    s, n, digit = (int(CLASSES[ids_of(character)]) for character in "sn7")
    assert (s, n, digit) == (21, 16, 3 + 26 + 7)
    values = [
        (64 + 60) * 64 + 21,
        (64 + 21) * 64 + 16,
        (64 + 16) * 64 + 61,
        ((64 + 60) * 64 + 21) * 64 + 16,
        ((64 + 21) * 64 + 16) * 64 + 61,
        (((64 + 60) * 64 + 21) * 64 + 16) * 64 + 61,
    ]
    words = words_of_text(ids_of("S/N"), CLASSES, BUCKETS)
    assert words.grams.tolist() == [value * 2654435761 % 2**32 // 2**18 for value in values]
    assert words.word_of.tolist() == [0, -1, 0]


def test_classes() -> None:
    assert CLASSES[0] == BREAK
    assert CLASSES[ids_of(" ")] == BREAK
    assert CLASSES[ids_of("-")] == SILENT
    assert CLASSES[ids_of("ä")] == CLASSES[ids_of("A")] == CLASSES[ids_of("a")]


def test_words_go_on_across_cells_and_end_at_gaps_and_rows() -> None:
    cells = cells_of([["Inv", "oice", " no.", ": 4", "2-7", ""], ["al", "To", "tal", "", "x", "y"]])
    found = words_of_cells(cells, CLASSES, BUCKETS)
    # invoice, no, 427; al, total is "alTotal" with the cells before it, then x and y behind a gap.
    assert len(found.words) == 5
    assert found.cells.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 10, 11]
    assert found.word.tolist() == [0, 0, 1, 2, 2, 3, 3, 3, 4, 4]
    assert grams_of(found.words, 0) == grams_of(words_of_text(ids_of("invoice"), CLASSES, BUCKETS), 0)
    assert grams_of(found.words, 2) == grams_of(words_of_text(ids_of("427"), CLASSES, BUCKETS), 0)


def test_a_cell_may_touch_several_words() -> None:
    found = words_of_cells(cells_of([["a b c"]]), CLASSES, BUCKETS)
    assert found.cells.tolist() == [0, 0, 0]
    assert found.word.tolist() == [0, 1, 2]


def test_pages_of_a_batch_are_apart() -> None:
    pages = [cells_of([["ab", "cd"], ["", "ef"]]), cells_of([["gh", ""], ["ij", "kl"]])]
    embedding = WordEmbedding(buckets=BUCKETS, dim=8)
    together = embedding.of_cells(words_of_cells(torch.stack(pages), CLASSES, BUCKETS), 8).view(2, 4, 8)
    for page, expected in zip(pages, together, strict=True):
        torch.testing.assert_close(embedding.of_cells(words_of_cells(page, CLASSES, BUCKETS), 4), expected)


def test_no_words() -> None:
    empty = find_words(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool), BUCKETS)
    assert len(empty) == 0
    silent = words_of_cells(cells_of([["--", " "]]), CLASSES, BUCKETS)
    assert len(silent.words) == 0
    assert not WordEmbedding(buckets=BUCKETS, dim=8).of_cells(silent, 2).any()


def test_words_spelled_alike_are_close() -> None:
    torch.manual_seed(0)
    embedding = WordEmbedding(buckets=BUCKETS, dim=64)
    vectors = embedding(words_of_text(ids_of("payment payments shipping"), CLASSES, BUCKETS))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    assert vectors[0] @ vectors[1] > 0.6 > 0.4 > vectors[0] @ vectors[2]


def offsets_of(rows: list[list[str]]) -> list[list[int]]:
    space, colon, equals, zero, nine = (int(ids_of(character)) for character in " :=09")
    offsets = run_offsets(cells_of(rows), space, (colon, equals), (zero, nine)) + LEAST
    return offsets.tolist()


def test_runs_begin_at_rows_gaps_and_behind_marks() -> None:
    assert offsets_of([["Tot", "al: ", "9:3", "0 x", " ", "abc"]]) == [[0, 3, 0, 3, 0, 0]]
    # The value begins after three characters of the cell that ends the key; an empty cell has no offset.
    assert offsets_of([["Tot", "l: 4", "5", "", ""]]) == [[0, -3, 1, 0, 0]]


def test_offsets_are_limited() -> None:
    assert offsets_of([["abcde"] * 6])[0] == [0, 5, 10, 15, 20, MOST]
