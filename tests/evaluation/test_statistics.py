"""Intervals and verdicts by hand."""

from __future__ import annotations

import math

import pytest

from slime_vlm.evaluation.ablation.claims import claims_table, verdict
from slime_vlm.evaluation.predictions import Row
from slime_vlm.evaluation.statistics import accuracy, accuracy_interval, difference_interval, mcnemar, wilson


def test_wilson_by_hand() -> None:
    # z = 1.96: 0 of 10 ends at z^2 / (10 + z^2) = 3.8415 / 13.8415.
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    # 5 of 10: the middle stays 0.5; the reach is z sqrt(0.025 + z^2 / 400) / (1 + z^2 / 10) = 0.36448 / 1.38415.
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_accuracy_counts_questions_not_pages() -> None:
    assert accuracy([(1, 1), (0, 3)]) == 0.25
    assert math.isnan(accuracy([]))


def test_bootstrap_draws_pages() -> None:
    # Of two pages, one all right and one all wrong, a quarter of the draws has none right and a quarter all.
    assert accuracy_interval([(4, 4), (0, 4)]) == (0.0, 1.0)
    # Every page half right: however pages are drawn, the share is a half.
    assert accuracy_interval([(2, 4)] * 5) == (0.5, 0.5)
    assert accuracy_interval([(4, 4)] * 10) == wilson(10, 10)


def test_a_wider_sample_is_surer() -> None:
    few = accuracy_interval([(3, 4), (1, 4), (4, 4), (2, 4)])
    many = accuracy_interval([(3, 4), (1, 4), (4, 4), (2, 4)] * 20)
    assert few[0] < many[0] < 0.625 < many[1] < few[1]


def test_differences_are_paired() -> None:
    # On every page the same one of four questions is lost: no doubt is left, though pages differ much.
    value, low, high = difference_interval([(0, 1, 4), (3, 4, 4), (1, 2, 4)])
    assert (value, low, high) == (-0.25, -0.25, -0.25)
    assert all(map(math.isnan, difference_interval([])))


def test_mcnemar_by_hand() -> None:
    # Of 5 questions that differ, one side has all: 2 * 1/32. Of 4, one has three: 2 * (1 + 4) / 16.
    assert mcnemar(5, 0) == 0.0625
    assert mcnemar(1, 3) == mcnemar(3, 1) == 0.625
    # No difference, or as even a one as can be.
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1.0
    assert mcnemar(900, 1100) < 1e-5


def test_draws_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    units = [(float(n % 3), 2) for n in range(50)]
    whole = accuracy_interval(units)
    monkeypatch.setattr("slime_vlm.evaluation.statistics._DRAWN_AT_ONCE", 350)
    assert accuracy_interval(units) == whole


def test_pages_that_do_not_differ_prove_little() -> None:
    # None of 10 pages differs: at most 3.8415 / 13.8415 of all pages do, see above.
    assert difference_interval([(2, 2, 4)] * 10) == pytest.approx((0.0, -0.27753, 0.27753), abs=1e-4)
    # Only with 189 pages and more is that within the margin of 0.02: 3.8415 / (189 + 3.8415) = 0.01992.
    for pages, said in ((188, "cannot be told"), (189, "holds")):
        _, low, high = difference_interval([(2, 2, 4)] * pages)
        assert verdict(low, high, equal=True, pages=pages) == said


@pytest.mark.parametrize(
    ("equal", "low", "high", "said"),
    [
        (True, -0.01, 0.03, "holds"),
        (True, -0.10, -0.03, "does not hold"),
        (True, -0.10, 0.05, "cannot be told"),
        (False, 0.10, 0.30, "holds"),
        (False, -0.10, -0.01, "does not hold"),
        (False, -0.01, 0.01, "does not hold"),
        (False, -0.02, 0.10, "cannot be told"),
    ],
)
def test_verdicts(equal: bool, low: float, high: float, said: str) -> None:
    assert verdict(low, high, equal=equal, pages=30) == said
    assert verdict(low, high, equal=equal, pages=5) == "cannot be told"


def test_claims_compare_the_same_questions() -> None:
    def row(setting: str, page: int, number: int, score: float) -> Row:
        return {
            "setting": setting,
            "image": str(page),
            "id": f"{page}/{setting}/{number}",
            "group": "table",
            "score": score,
        }

    rows = [row("all", page, number, 1.0) for page in range(21) for number in range(2)]
    # One of two questions of every page is lost; the last two pages have not been asked yet.
    rows += [row("best 50%", page, number, float(number)) for page in range(19) for number in range(2)]
    rows += [row("best 50%", 30, 0, 1.0)]
    line = "| 50% of the local tokens are enough | best 50% less all | -0.50 (-0.50 to -0.50) | {} |"
    # 19 pages that both have are too few, however many one of them has.
    assert claims_table(rows).splitlines()[2:] == [line.format("cannot be told")]
    rows += [row("best 50%", 19, number, float(number)) for number in range(2)]
    assert claims_table(rows).splitlines()[2:] == [line.format("does not hold")]
    assert claims_table([]) == ""
