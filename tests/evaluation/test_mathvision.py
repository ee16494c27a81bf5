"""MATH-Vision: the official cut, and values of formulas, against examples worked by hand."""

from __future__ import annotations

import pytest

from slime_vlm.evaluation.metrics.latex_value import latex_value
from slime_vlm.evaluation.metrics.mathverse import stated_option, stated_result
from slime_vlm.evaluation.metrics.mathvision import final_answer, mathvision_match

OPTIONS = {"A": "1", "B": "2", "C": "3", "D": "4", "E": "5"}
LETTERS_ONLY = {letter: letter for letter in "ABCDE"}


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        ("B", 1.0),
        ("b", 1.0),
        ("(B)", 1.0),
        ("B.", 1.0),
        ("B\nbecause", 1.0),
        ("(B)\nbecause", 1.0),
        ("I choose B.", 1.0),
        ("It must be (B).", 1.0),
        ("\\boxed{B}", 1.0),
        ("\\boxed{\\text{B}}", 1.0),
        ("The answer is B", 1.0),
        ("2", 1.0),
        ("It is 2", 1.0),
        ("So the answer is 2.", 1.0),
        # A letter with a text is neither of them.
        ("B. 2", 0.0),
        ("(B) 2", 0.0),
        ("**B**", 0.0),
        ("Answer: B", 0.0),
        ("A", 0.0),
        ("", 0.0),
    ],
)
def test_options(prediction: str, score: float) -> None:
    assert mathvision_match(prediction, "B", OPTIONS) == score


def test_options_that_are_their_letters() -> None:
    assert mathvision_match("(B) B", "B", LETTERS_ONLY) == 0.0
    assert mathvision_match("(B) B\nsince", "B", LETTERS_ONLY) == 1.0


@pytest.mark.parametrize(
    ("prediction", "answer", "score"),
    [
        ("First 3, hence \\boxed{\\frac{1}{2}}", "0.5", 1.0),
        ("It is 7", "7", 1.0),
        ("45°", "45", 0.0),
        ("45^\\circ", "45", 1.0),
        ("\\(14\\)", "14", 0.0),
        ("the answer is 14. Because", "14", 1.0),
        ("THE ANSWER IS 14", "14", 0.0),
        ("x = 5 units", "5", 1.0),
        ("5 cm", "5", 0.0),
        ("5 km", "5", 1.0),
        ("(1/2, 3)", "(0.5,3)", 1.0),
        ("(4/2, 1)", "(2,1)", 0.0),
        ("(3, 1)", "(1,3)", 0.0),
        ("0.333", "\\frac{1}{3}", 1.0),
        ("0.34", "\\frac{1}{3}", 0.0),
        ("\\sqrt2\\frac12", "\\frac{\\sqrt{2}}{2}", 1.0),
        ("1/2", "0.5", 1.0),
        ("∞", "\\infty", 1.0),
        ("", "3", 0.0),
    ],
)
def test_open_questions(prediction: str, answer: str, score: float) -> None:
    assert mathvision_match(prediction, answer, {}) == score


def test_the_last_box_counts() -> None:
    assert final_answer("\\boxed{1} and \\boxed{\\frac{2}{3}}") == "\\frac{2}{3}"
    # Without another box, braces are not counted: the rest of the text is cut at the first that nothing opened.
    assert final_answer("\\boxed{1} and {2}") == "1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\frac{1}{2}", 0.5),
        ("\\frac12", None),
        ("2\\sqrt{9}", 6.0),
        ("\\sqrt[3]{8}", 2.0),
        ("3\\pi", 9.42),
        ("\\pi3", 9.42),
        ("1,250", 1250),
        ("1,25", None),
        ("2^{10}", 1024),
        ("2^3^2", 64),
        ("2^-1", None),
        ("-2^2", -4),
        # Both a product and a denominator by juxtaposition.
        ("1\\frac{1}{2}", 0.5),
        ("1/2\\pi", 0.16),
        ("5:3", 1.67),
        ("3!", 6),
        ("10\\%", 0.1),
        ("300\\%", 3),
        ("e", None),
        ("e^{2}", 7.39),
        ("\\log{100}", 2.0),
        ("\\log_{2}8", 3.0),
        ("\\ln 2", None),
        ("\\sin^{2}1", 0.71),
        ("\\cos 0 + 1", 2.0),
        ("\\binom{5}{2}", 10),
        ("4>3", 1),
        # A mark that cannot continue a formula ends it.
        ("3.", 3),
        ("3)", 3),
        ("3}", 3),
        ("3 triangles", 3),
        ("3 squares", None),
        ("3+", None),
        ("3,", None),
        ("(3", None),
        ("|3|", None),
        ("45^\\circ", None),
        ("x", None),
        ("\\infty", None),
        ("1/0", None),
        ("\\sqrt{-1}", None),
        ("9^9^9^9", None),
        ("1" * 2000, None),
        ("(" * 300, None),
        ("\\sin" * 240 + "1", None),
        ("\\sqrt{" * 160 + "1", None),
        ("-" * 900 + "1", 1),
        ("__import__('os')", None),
        ("", None),
    ],
)
def test_values_of_formulas(text: str, value: float | None) -> None:
    found = latex_value(text)
    assert (None if found is None else round(found, 2)) == value
    assert isinstance(found, type(value))


def test_mathverse_reads_more() -> None:
    assert [stated_option(text, "ABCD") for text in ("(B)", "B. 2", "the (C)", "so A.", "E")] == [
        "B",
        "B",
        "C",
        None,
        None,
    ]
    assert stated_result("Hence the answer is: 3.") == "3"
    assert stated_result("\\boxed{\\frac{1}{2}} or so") == "\\frac{1}{2}"
