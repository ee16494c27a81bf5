"""Spaces within numbers and words."""

from __future__ import annotations

import pytest

from slime_vlm.model.stray_spaces import spaces_in_numbers, spaces_in_words


def tidied(line: str, places: list[int] | None = None) -> str:
    dropped = set(spaces_in_numbers(line, places or list(range(0, 3 * len(line), 3))))
    return "".join(character for index, character in enumerate(line) if index not in dropped)


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("$46. 05", "$46.05"),
        ("£5 , 999 . 81", "£5,999.81"),
        ("1. 154,98 EUR", "1.154,98 EUR"),
        ("from 10: 30", "from 10:30"),
        ("2021-10 - 16", "2021-10-16"),
        ("22/ 11 /2018", "22/11/2018"),
    ],
)
def test_numbers_are_whole(read: str, meant: str) -> None:
    assert tidied(read) == meant


@pytest.mark.parametrize(
    "line",
    [
        "",
        "15, 2028",  # a date's year
        "No. 4",
        "1. 12.50",  # the number of a row, and a price
        "rooms 4, 5 and 6",
        "08:35 - 18:25",
        "10 - 12",
        "3. 1. 2020",
        "(724) 779-3732",
    ],
)
def test_other_spaces_stay(line: str) -> None:
    assert tidied(line) == line


def test_a_far_column_is_no_part_of_a_number() -> None:
    # The mark stands beside its digit, and what follows is in the next column.
    assert tidied("1. 12", [0, 2, 12, 20, 23]) == "1. 12"
    assert tidied("1. 12", [0, 2, 3, 5, 8]) == "1.12"


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("Mantillas Distant Motor s", "Mantillas Distant Motors"),
        ("Set lunc h", "Set lunch"),
        ("Local  mileage", "Local mileage"),
        ("Bianca Moser- Lund", "Bianca Moser-Lund"),
        ("S . Zeerback", "S. Zeerback"),
        ("Payable within 30 days .", "Payable within 30 days."),
    ],
)
def test_words_are_whole(read: str, meant: str) -> None:
    dropped = set(spaces_in_words(read))
    assert "".join(character for index, character in enumerate(read) if index not in dropped) == meant


@pytest.mark.parametrize(
    "line",
    ["", "what a day", "weight in g", "size 12 cm", "4 x 5", "cards x 2", "Total : 5", "10 - 12", "1 200 .5", "Plan B"],
)
def test_spaces_between_words_stay(line: str) -> None:
    assert spaces_in_words(line) == []
