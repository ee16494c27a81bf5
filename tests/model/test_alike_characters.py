"""Characters that look alike are told apart by their words, and only where the words tell."""

import pytest

from slime_vlm.model.alike_characters import told_apart


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("2O14", "2014"),
        ("2l:36", "21:36"),
        ("l.2", "1.2"),
        ("10O.4.18.77", "100.4.18.77"),
        ("1ll", "111"),
        ("0ctober", "October"),
        ("dayS", "days"),
        ("UsD", "USD"),
        ("zPB", "ZPB"),
    ],
)
def test_misread(read: str, meant: str) -> None:
    assert told_apart(read) == meant


@pytest.mark.parametrize(
    "word",
    [
        "BS1",
        "5TR",
        "YK19",
        "HP-20417",
        "17C",
        "No1",
        "1.5l",
        "Nov",
        "NOV",
        "Px",
        "iPhone",
        "LLC",
        "Oslo",
        "ll",
        "",
        "\0",
        "£224.40",
    ],
)
def test_what_stays(word: str) -> None:
    assert told_apart(word) == word


@pytest.mark.parametrize("word", ["2O14", "UsD", "0ctober", "a-O-5", "lO0l"])
def test_it_settles_at_once(word: str) -> None:
    assert told_apart(told_apart(word)) == told_apart(word)
    assert len(told_apart(word)) == len(word)
