"""Letters of multiple choice, by the rules of several scripts, against examples worked by hand."""

from __future__ import annotations

import pytest

from slime_vlm.evaluation.metrics.choices import first_character, scienceqa_letter, scienceqa_letter_lmms_eval
from slime_vlm.evaluation.metrics.mmbench import hr_bench_letter, mmbench_letter, mmbench_letter_lmms_eval
from slime_vlm.evaluation.metrics.mmmu import mmmu_letter, mmmu_letter_lmms_eval
from slime_vlm.evaluation.metrics.ranked_letter import ranked_letter
from slime_vlm.evaluation.metrics.realworld import realworld_letter, realworld_letter_lmms_eval
from slime_vlm.evaluation.metrics.vstar import vstar_letter


def test_seed_takes_the_first_character() -> None:
    assert [first_character(text) for text in (" b. blue", "The answer is A", "")] == ["B", "T", ""]


@pytest.mark.parametrize(
    ("prediction", "letter", "by_lmms_eval"),
    [
        ("B", "B", "B"),
        ("B. blue", "B", "B"),
        ("The answer is C.", "C", None),
        ("The answer is C", None, None),
        # The period of the published pattern is any character.
        ("The answer is C, since", "C", None),
        ("The answer is A. No: The answer is B.", None, None),
        ("B.", None, "B"),
        ("b", None, "B"),
        ("E", None, None),
        ("", None, None),
    ],
)
def test_scienceqa_reads(prediction: str, letter: str | None, by_lmms_eval: str | None) -> None:
    assert scienceqa_letter(prediction, "ABCD") == letter
    assert scienceqa_letter_lmms_eval(prediction, "ABCD") == by_lmms_eval


@pytest.mark.parametrize(
    ("prediction", "letter", "hr_bench", "by_lmms_eval"),
    [
        ("B", "B", "B", "B"),
        ("(B)", "B", "B", "B"),
        ("Option B: blue", "B", "B", "B"),
        ("It must be C.", "C", "C", "C"),
        # Too far from the end for a letter alone. HR-Bench has no such limit, lmms-eval takes it for the article.
        ("A thing that has been painted in black", "D", "A", "D"),
        # The first place of the letter counts.
        ("B is what I take, I would say, and so B", None, "B", "B"),
        ("The answer is **B**, as it seems to me", "B", "B", None),
        # Without case and without an end of the word: option A, then option B.
        ("the answer is a", "A", None, None),
        ("The answer is a blue one", "A", "B", "B"),
        ("The answer is B and nothing of the rest", "B", "B", "B"),
        ("Z", "Z", "Z", None),
        ("Cannot determine the answer", "Z", "Z", None),
        ("Cannot determine the answer, so A", "Z", "Z", None),
        ("blue", "B", "B", "B"),
        ("Red or blue", None, None, None),
        ("A or B", None, None, None),
        ("I cannot say", None, None, None),
        ("", None, None, None),
    ],
)
def test_mmbench_reads(prediction: str, letter: str | None, hr_bench: str | None, by_lmms_eval: str | None) -> None:
    options = {"A": "red", "B": "blue", "C": "green and so on, a long one", "D": "black"}
    assert mmbench_letter(prediction, options) == letter
    assert hr_bench_letter(prediction, options) == hr_bench
    assert mmbench_letter_lmms_eval(prediction, options) == by_lmms_eval


def test_an_answer_too_long_for_its_options_is_not_searched() -> None:
    options = {"A": "red", "B": "blue"}
    assert mmbench_letter("it is blue in my opinion", options) is None
    assert hr_bench_letter("it is blue in my opinion", options) == "B"


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("(B)", "B"),
        ("A or B", "B"),
        ("(A) rather than B", "A"),
        ("It is C.", "C"),
        ("B.", "B"),
        ("as far as one can see: blue one", "B"),
        ("B is in RNA as well", "B"),
    ],
)
def test_mmmu_reads(prediction: str, letter: str) -> None:
    options = ["red one", "blue one", "green one"]
    assert mmmu_letter(prediction, options, "q") == (letter, False)
    assert mmmu_letter_lmms_eval(prediction, options, "q") == (letter, False)


def test_only_lmms_eval_reads_the_end_of_a_word() -> None:
    options = ["red one", "blue one", "green one"]
    assert mmmu_letter_lmms_eval("NASA", options, "q") == ("A", False)
    assert mmmu_letter_lmms_eval("A.x B.y", options, "q") == ("A", False)
    assert mmmu_letter("NASA", options, "q")[1]
    assert mmmu_letter("A.x B.y", options, "q")[1]


def test_mmmu_draws_alike_every_time() -> None:
    drawn = [mmmu_letter("no idea", ["x1", "x2", "x3", "x4"], f"q{n}") for n in range(20)]
    assert all(was_drawn for _, was_drawn in drawn)
    assert {letter for letter, _ in drawn} == set("ABCD")
    assert drawn == [mmmu_letter("no idea", ["x1", "x2", "x3", "x4"], f"q{n}") for n in range(20)]
    assert mmmu_letter("no idea", [], "q") == ("", True)


@pytest.mark.parametrize(
    ("prediction", "letter", "by_lmms_eval"),
    [
        ("B", "B", "B"),
        ("The best answer is: (C)", "C", "C"),
        # The article counts as option A.
        ("A green one, that is C", "A", "A"),
        # Taken for option A, as both scripts take it.
        ("Answer: C", "A", "A"),
        # The authors' list joins this phrase and the next, so it is not removed.
        ("Best answer: C", "B", "C"),
        # Part of an option, and not an option that is part of it. lmms-eval knows no options.
        ("white", "D", ""),
        ("b", "B", "B"),
        ("the colour is white", "", ""),
        ("it is white but i will go on for far too many words", "", ""),
        # An empty text is part of the first option.
        ("", "A", "A"),
        ("The answer is ", "A", "A"),
    ],
)
def test_realworld_reads(prediction: str, letter: str, by_lmms_eval: str) -> None:
    options = ["(A) red", "(B) blue", "(C) green", "(D) white", "(E) none of them"]
    assert realworld_letter(prediction, options) == letter
    assert realworld_letter_lmms_eval(prediction) == by_lmms_eval


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("b", "B"),
        ("a dog", "A"),
        ("The answer is c", "C"),
        ("It is (D), not A", "D"),
        ("I take B. Or C", "B"),
        ("I like B", "B"),
        ("The **C** one", "C"),
        ("no", None),
        ("", None),
    ],
)
def test_vstar_reads(prediction: str, letter: str | None) -> None:
    assert vstar_letter(prediction) == letter


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("B", "B"),
        ("B. It fades.", "B"),
        ("A is wrong, so it must be C", "A"),
        ("It is not A. It must be C.", "C"),
        # After a phrase every letter counts, however far, and the last one wins.
        ("The answer is (D), since (A) fails", "A"),
        ("The answer is (D)", "D"),
        ("(A), then (B) again", "B"),
        ("NASA as usual", "A"),
        ("xBx", "B"),
        ("i choose c", None),
        ("...", None),
        ("", None),
    ],
)
def test_ranked_letters(prediction: str, letter: str | None) -> None:
    assert ranked_letter(prediction) == letter
