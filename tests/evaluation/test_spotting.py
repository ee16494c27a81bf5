"""Text spotting, by hand."""

from __future__ import annotations

import pytest

from slime_vlm.evaluation.metrics.spotting import spotting_match, stated_texts

# Two boxes of 10 by 10, given by their four corners.
BOXES = [[0, 0, 10, 0, 10, 10, 0, 10], [20, 0, 30, 0, 30, 10, 20, 10]]
TEXTS = ["Exit", "50!"]


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        # The case does not count, nor does a mark at the end of the right text.
        ('[(0, 0, 10, 10, "EXIT"), (20, 0, 30, 10, "50")]', 1.0),
        # One of two is found, and one is stated: precision 1, recall 1/2.
        ("(0, 0, 10, 10, Exit)", 2 / 3),
        ("[[0, 0, 10, 10, 'Exit'], [20, 0, 30, 10, '51']]", 1 / 2),
        # Shifted by a third of the width: 20/3 of 40/3, not more than half. Shifted by 3 of 10: 7 of 13.
        ("(5, 0, 15, 10, Exit)", 0.0),
        ("(3, 0, 13, 10, Exit)", 2 / 3),
        # The first box that overlaps is the partner, even with a wrong text.
        ("(0, 0, 10, 10, No), (0, 0, 10, 10, Exit)", 0.0),
        # A box without an area is not stated, and neither is one beyond 1000.
        ("(0, 0, 10, 10, Exit), (5, 5, 5, 9, x), (0, 0, 1001, 9, x)", 2 / 3),
        ("Exit", 0.0),
        ("", 0.0),
    ],
)
def test_pairs_of_boxes(prediction: str, score: float) -> None:
    assert spotting_match(prediction, BOXES, TEXTS) == pytest.approx(score)


def test_unreadable_boxes_do_not_count() -> None:
    given = "(0, 0, 10, 10, Exit), (21, 1, 29, 9, anything)"
    assert spotting_match(given, BOXES, ["Exit", "###"]) == 1.0
    assert spotting_match(given, BOXES, ["###", "###"]) == 0.0


def test_stated_texts() -> None:
    assert stated_texts("[(1, '2', 3, 4, \"'a'\"), (1, 2, 3, 4, 'a'), (1, 2, 3.5, 4, 'b'), 7]") == [((1, 2, 3, 4), "a")]
    assert stated_texts("[1, 2, 3, 4, a, b] and (5)") == [((1, 2, 3, 4), "a, b")]
    assert stated_texts("'text'") == []
