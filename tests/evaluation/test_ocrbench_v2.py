"""OCRBench v2: the metrics of its types and the averages of its groups, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Question
from slime_vlm.evaluation.metrics.ocrbench_v2 import (
    box_overlap,
    count_match,
    formula_match,
    grounding_match,
    handwriting_match,
    letters_match,
    pairs_match,
    position_match,
    short_or_near,
    stated_pairs,
)
from tests.evaluation.test_benchmarks import scored

BENCHMARK = BENCHMARKS["ocrbench_v2"]
LONG = "one two three four five"


@pytest.mark.parametrize(
    ("prediction", "answers", "options", "score"),
    [
        ("It says ACME.", ["acme"], {}, 1.0),
        ("It says ACME.", ["acme"], {"case": True}, 0.0),
        ("AC ME", ["acme"], {}, 0.0),
        ("AC ME", ["acme"], {"chinese": True}, 1.0),
        # From five words on, the nearest answer counts by its similarity. Contained is not enough.
        ("one two three four fiver", [LONG], {}, 23 / 24),
        (f"{LONG} and then as many words again", [LONG], {}, 0.0),
        ("", ["x"], {}, 0.0),
    ],
)
def test_short_or_near(prediction: str, answers: list[str], options: dict[str, bool], score: float) -> None:
    assert short_or_near(prediction, answers, **options) == pytest.approx(score)


def test_letters_and_formulas() -> None:
    assert [letters_match(text, "B") for text in ("(B).", "B C", "b")] == [1.0, 0.0, 0.0]
    assert formula_match("so \\frac{1}{2}", ["\\frac { 1 } { 2 }"]) == 1.0
    assert formula_match("\\text{ab}c", ["abc"]) == 0.0
    assert formula_match("\\text{ab}c", ["a\\text{bc}"], chinese=True) == 1.0
    assert [handwriting_match(text, "ABD") for text in ("选 A、B、D", "ABD", "A,B.D")] == [1.0, 1.0, 0.0]


def test_counts() -> None:
    assert count_match("It is 12", ["12"], near=False) == 1.0
    # Nine of ten is near by 0.9. Five of ten is not near enough.
    assert [count_match(text, ["10"], near=True) for text in ("9", "about 11", "5", "20", "ten", "0")] == pytest.approx(
        [0.9, 0.9, 0.0, 0.0, 0.0, 0.0]
    )


def test_pairs() -> None:
    answer = '{"total": ["12.50", "$12.50"], "date": "1 May"}'
    assert pairs_match('{"total": "$12.50", "date": "1 may"}', answer) == 1.0
    # Of three keys, one is right, one is missing, and one is invented.
    assert pairs_match("```json\n{'total': 12.50, 'name': 'x'}\n```", answer) == 0.0
    assert pairs_match("total: 12.50\nname: x", answer) == pytest.approx(1 / 3)
    assert stated_pairs("[1, 2]") == stated_pairs("{1: 2}") == stated_pairs("") == {}


def test_boxes() -> None:
    assert box_overlap([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(50 / 150)
    assert [box_overlap(["a"], [0, 0, 1, 1]), box_overlap([0, 0, 0, 0], [0, 0, 0, 0])] == [0.0, 0.0]
    # The last box whose coordinates are possible.
    assert grounding_match("(0, 0, 10, 10), no: [5, 0, 15, 10] of [0,0,2000,10]", ["5", "0", "15", "10"]) == 1.0
    assert grounding_match("somewhere", [0, 0, 1, 1]) == 0.0
    assert position_match('{"answer": "ACME", "bbox": "[0, 0, 10, 10]"}', ["acme"], [5, 0, 15, 10]) == pytest.approx(
        0.5 + 0.5 / 3
    )
    assert position_match('{"answer": "ACME", "bbox": "[0]"}', ["acme"], [5, 0, 15, 10]) == 0.5
    assert position_match("ACME", ["acme"], []) == 0.0


def test_groups() -> None:
    result = BENCHMARK.summarise(scored(BENCHMARK, ["acme", "C", "total: 12.50", "7"]))
    assert result["visual text understanding"] == result["relationship extraction"] == 100.0
    # One of its two types is wrong.
    assert (result["mathematical calculation"], result["math QA en"], result["text counting en"]) == (50.0, 0.0, 100.0)
    assert result["mean of scored English groups"] == pytest.approx(250 / 3)
    assert result["not scored"] == 0.0


def ask(kind: str, **fields: Any) -> Question:
    record = {
        "question": " What? ",
        "answers": ["x"],
        "image": "",
        "type": kind,
        "eval": "None",
        "bbox": "[1, 2, 3, 4]",
    }
    return BENCHMARK.ask({**record, **fields}, 3)


def test_types_without_a_metric_here_have_no_score() -> None:
    assert ask("full-page OCR en").prompt == "What?"
    assert ask("VQA with position en").target["box"] == [1, 2, 3, 4]
    for kind in ("full-page OCR en", "table parsing cn", "text spotting en"):
        assert BENCHMARK.score("x", ask(kind).target) is None
    short = ask("handwritten answer extraction cn", question="简答题")
    assert (BENCHMARK.score("x", short.target), BENCHMARK.score("x", ask("cognition VQA cn").target)) == (None, 1.0)
    with pytest.raises(DataError, match="record 3 has the unknown type 'dancing'"):
        ask("dancing")
