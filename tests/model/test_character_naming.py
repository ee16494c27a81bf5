"""Places of a page of 3 rows and 12 places, in cells of 6 places; ids 1 to 4 are characters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slime_vlm.model.character_naming import CharacterNames, NamedCharacters, are_letters, name_characters

A, B, C, L = 1, 2, 3, 4


def places(*seen: tuple[int, int, int, int, float]) -> torch.Tensor:
    """Probabilities from (row, place, line, id, probability); the rest is nothing."""
    probs = torch.zeros(3, 12, 2, 5)
    for row, place, line, index, value in seen:
        probs[row, place, line, index] = value
    probs[..., 0] = 1.0 - probs[..., 1:].sum(dim=-1)
    return probs


def found(*seen: tuple[int, int, int, int, float]) -> list[tuple[int, int, int]]:
    named = name_characters(places(*seen))
    return list(zip(named.rows.tolist(), named.places.tolist(), named.ids.tolist(), strict=True))


def test_sure_characters() -> None:
    assert found((1, 2, 0, A, 0.9), (1, 4, 0, B, 1.0)) == [(1, 2, A), (1, 4, B)]
    assert found() == []


def test_a_character_between_two_places_is_named_once() -> None:
    assert found((1, 2, 0, A, 0.45), (1, 3, 0, A, 0.5)) == [(1, 3, A)]


def test_two_letters_side_by_side_are_two() -> None:
    assert found((1, 2, 0, L, 0.99), (1, 3, 0, L, 0.97)) == [(1, 2, L), (1, 3, L)]
    # Less sure, they are more often one than two.
    assert found((1, 2, 0, L, 0.9), (1, 3, 0, L, 0.7)) == [(1, 2, L)]


def test_letters_above_each_other_are_two() -> None:
    assert found((0, 2, 0, L, 0.9), (1, 2, 0, L, 0.8)) == [(0, 2, L), (1, 2, L)]
    assert found((0, 2, 0, L, 0.9), (1, 2, 0, L, 0.2)) == [(0, 2, L)]


def test_two_readings_of_one_character_are_one() -> None:
    assert found((1, 2, 0, A, 0.5), (1, 2, 0, B, 0.4), (1, 3, 0, B, 0.1)) == [(1, 2, A)]


def test_what_is_improbable_is_left_out() -> None:
    assert found((1, 2, 0, A, 0.1), (1, 8, 0, B, 0.14)) == []


def test_a_line_between_two_rows_stays_in_one() -> None:
    """The middle of the line lies on the edge of rows 0 and 1: each character is more probable in another row."""
    seen = []
    for place, (index, upper) in enumerate([(A, 0.6), (B, 0.4), (C, 0.55), (A, 0.35), (B, 0.6)]):
        seen += [(0, 2 * place, 0, index, upper), (1, 2 * place, 0, index, 1.0 - upper)]
    named = found(*seen)
    assert [index for _, _, index in named] == [A, B, C, A, B]
    assert {row for row, _, _ in named} == {0}


def test_lines_in_their_own_rows_stay_there() -> None:
    assert found((0, 2, 0, A, 1.0), (1, 3, 0, B, 1.0), (2, 4, 0, C, 1.0)) == [(0, 2, A), (1, 3, B), (2, 4, C)]


def test_cells_line_by_line() -> None:
    named = name_characters(places((0, 1, 1, C, 1.0), (0, 3, 0, B, 1.0), (0, 1, 0, A, 1.0), (0, 7, 0, L, 1.0)))
    cells = named.cells((3, 2), slots=4)
    assert cells.shape == (3, 2, 4)
    assert cells[0].tolist() == [[A, B, C, 0], [L, 0, 0, 0]]
    assert not cells[1:].any()
    assert named.cells((3, 2), slots=2)[0, 0].tolist() == [A, B]


def test_a_space_before_what_stands_far_away() -> None:
    """Distances of 3 and 8 places on the first row; another row begins anew."""
    named = name_characters(places((0, 0, 0, A, 1.0), (0, 3, 0, B, 1.0), (0, 11, 0, C, 1.0), (1, 11, 0, A, 1.0)))
    none = np.zeros(10, bool)
    gapped = named.with_gaps(L, none)
    assert gapped.ids.tolist() == [A, B, L, C, A]
    assert gapped.places.tolist() == [0, 3, 11, 11, 11]
    assert gapped.cells((3, 2), slots=3)[0].tolist() == [[A, B, 0], [L, C, 0]]
    # Once is enough.
    assert gapped.with_gaps(L, none).ids.tolist() == gapped.ids.tolist()


def test_letters_of_large_print_belong_together() -> None:
    row = places((0, 0, 0, A, 1.0), (0, 9, 0, B, 1.0), (1, 0, 0, A, 1.0), (1, 9, 0, C, 1.0))
    letters = np.zeros(10, bool)
    letters[[A, B]] = True
    assert name_characters(row).with_gaps(L, letters).ids.tolist() == [A, B, A, L, C]
    assert are_letters("a 1é").tolist() == [False, True, False, False, True, False]


def test_probabilities_are_sums_around_a_place() -> None:
    named = name_characters(places((1, 2, 0, A, 0.3), (1, 3, 0, A, 0.4), (1, 8, 0, B, 0.9)))
    assert named.probs.tolist() == pytest.approx([0.7, 0.9])
    assert isinstance(named, NamedCharacters)


def test_both_lines_of_a_place_share_a_table() -> None:
    torch.manual_seed(0)
    names = CharacterNames(hidden=6, num_characters=5)
    with torch.no_grad():
        names.bias[1, 3] = 2.0
    logits = names(torch.ones(4, 2, 6))
    assert logits.shape == (4, 2, 5)
    assert (logits[:, 1] - logits[:, 0])[0].tolist() == pytest.approx([0, 0, 0, 2.0, 0])


def test_words_tell_characters_apart() -> None:
    """Places of "2O 1O" on a row, by ids of the characters "2O1 0"; another row is another word."""
    row = torch.zeros(3, 12, 2, 6)
    for at, index in ((0, 1), (2, 2), (4, 4), (6, 3), (8, 2)):
        row[0, at, 0, index] = 1.0
    row[1, 3, 0, 2] = 1.0
    row[..., 0] = 1.0 - row[..., 1:].sum(dim=-1)
    named = name_characters(row).told_apart("2O1 0")
    order = np.lexsort((named.places, named.rows))
    assert named.ids[order].tolist() == [1, 5, 4, 3, 5, 2]
