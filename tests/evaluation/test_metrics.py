"""Metrics against examples worked by hand from the benchmarks' definitions, traps included."""

from __future__ import annotations

import pytest

from slime_vlm.evaluation.metrics.anls import anls, anls_llava
from slime_vlm.evaluation.metrics.circular import circular_scores
from slime_vlm.evaluation.metrics.containing import marked_match, ocr_match
from slime_vlm.evaluation.metrics.exact import gqa_match, gqa_match_lmms_eval
from slime_vlm.evaluation.metrics.judge_reply import stated_mark, stated_rating, two_marks
from slime_vlm.evaluation.metrics.mathvista import extract_by_rule, normalise_extraction
from slime_vlm.evaluation.metrics.mmmu import open_match, open_values
from slime_vlm.evaluation.metrics.relaxed import relaxed_accuracy
from slime_vlm.evaluation.metrics.vqa import (
    normalise_answer,
    original_vqa_accuracy,
    submitted_vqa_accuracy,
    vqa_accuracy,
    vqa_accuracy_lmms_eval,
)
from slime_vlm.evaluation.metrics.yes_no import (
    Confusion,
    amber_scores,
    mme_category,
    read_amber,
    read_mme,
    read_pope,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The two dogs", "2 dogs"),
        ("none", "0"),
        ("An apple, a pear", "apple pear"),
        ("3.", "3"),
        ("3.5", "3.5"),
        ("end. of", "end of"),
        ("1,000", "1000"),
        ("dont", "don't"),
        ("hed've", "he'd've"),
        ("it'dve", "it'd've"),
        ("yall'd've", "y'all'd've"),
        # An odd entry of the table, kept as it is.
        ("somebody'd", "somebodyd"),
        # The table has I've in upper case, which words in lower case never meet.
        ("Ive", "ive"),
        ("well-known", "well known"),
        # Beside a blank the character vanishes, and so it does everywhere else in the text.
        ("well-known -", "wellknown"),
        ("the dog's", "dog 's"),
        ("red\nor\tblue", "red or blue"),
        ("", ""),
    ],
)
def test_vqa_normalisation(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


def test_the_first_step_is_the_evalai_processor_s_alone() -> None:
    assert normalise_answer("the dog's", evalai=False) == "dog's"
    # A comma between digits makes every mark of the text vanish, where the processor has not deleted it before.
    assert normalise_answer("1,000-2", evalai=False) == "10002"
    assert normalise_answer("1,000-2") == "1000 2"


def test_only_32_periods_are_taken_away() -> None:
    assert normalise_answer("a" + "." * 33) == "a."


@pytest.mark.parametrize(("agreeing", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_of_ten(agreeing: int, score: float) -> None:
    answers = ["red"] * agreeing + [f"other {n}" for n in range(10 - agreeing)]
    assert vqa_accuracy("Red.", answers) == pytest.approx(score)


def test_original_rule_compares_unanimous_answers_as_they_are() -> None:
    assert vqa_accuracy("Dog", ["Dog."] * 10) == 1.0
    assert original_vqa_accuracy("Dog", ["Dog."] * 10) == 0.0
    assert original_vqa_accuracy("Dog", ["Dog."] * 9 + ["cat"]) == 1.0
    assert vqa_accuracy("x", []) == 0.0
    # Outer blanks and line ends never count, nor does a prediction's punctuation once it has been submitted.
    assert original_vqa_accuracy("Dog", [" Dog\n"] * 10) == 1.0
    assert original_vqa_accuracy("Dog.", ["dog"] * 10) == 0.0
    assert submitted_vqa_accuracy("Dog.", ["dog"] * 10) == 1.0
    assert vqa_accuracy_lmms_eval("Dog.", ["dog."] * 10) == 1.0


@pytest.mark.parametrize(
    ("prediction", "answer", "score"),
    [
        ("95", "100", 1.0),
        ("94.9", "100", 0.0),
        # Of the answer, not of the prediction: 5 / 95 is too much, 5 / 100 would not be.
        ("100", "95", 0.0),
        ("12%", "0.12", 1.0),
        ("12%", "12", 0.0),
        ("1,000", "1000", 0.0),
        ("0", "0", 1.0),
        ("0.0", "0", 0.0),
        ("Yes", "yes", 1.0),
        ("red", "blue", 0.0),
        ("nan", "5", 0.0),
        ("nan", "nan", 0.0),
        ("inf", "inf", 0.0),
        ("yes ", "yes", 0.0),
        ("", "5", 0.0),
        ("%", "5", 0.0),
    ],
)
def test_relaxed_accuracy(prediction: str, answer: str, score: float) -> None:
    assert relaxed_accuracy(prediction, answer) == score


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("abd", ["abc"], 2 / 3),
        ("xyz", ["abc"], 0.0),
        # 0.5 is enough, less is nothing.
        ("ab", ["ac"], 0.5),
        ("abcd", ["axyz"], 0.0),
        ("Annual   REPORT", ["annual report"], 1.0),
        ("12", ["11", "12"], 1.0),
        # The distance is of tidied texts, the length of the raw ones: one letter of five characters.
        ("ab   ", ["cb"], 0.8),
        ("", [""], 1.0),
        ("", ["a"], 0.0),
        ("a", [], 0.0),
    ],
)
def test_anls(prediction: str, answers: list[str], score: float) -> None:
    assert anls(prediction, answers) == pytest.approx(score)


def test_anls_divides_by_the_length_in_upper_case() -> None:
    # STRASSE has seven letters. LLaVA's evaluator divides by the six of the text itself.
    assert anls("straße", ["strafe"]) == pytest.approx(6 / 7)
    assert anls_llava("straße", ["strafe"]) == pytest.approx(5 / 6)
    assert anls_llava("a  b", ["a b"]) == 0.75
    assert anls("a  b", ["a b"]) == 1.0


def test_gqa_ignores_case_and_final_periods() -> None:
    assert gqa_match("Red..", "red") == 1.0
    assert gqa_match("dark red", "red") == 0.0
    # Other punctuation counts, and the answer is compared as it is. lmms-eval ignores both.
    assert [gqa_match("red!", "red"), gqa_match("red", "Red")] == [0.0, 0.0]
    assert [gqa_match_lmms_eval("red!", "red"), gqa_match_lmms_eval("red", "Red.")] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("No.", "no"),
        ("Yes, there is.", "yes"),
        ("I do not see one", "no"),
        ("yes,no", "yes"),
        ("Yes. There is no dog.", "yes"),
        ("NO", "yes"),
        ("nothing", "yes"),
        ("", "yes"),
    ],
)
def test_pope_reads(prediction: str, answer: str) -> None:
    assert read_pope(prediction) == answer


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [("Yes.", "yes"), ("n", "no"), (" No, it is", "no"), ("It is", "other"), ("known", "no"), ("", "other")],
)
def test_mme_reads(prediction: str, answer: str) -> None:
    assert read_mme(prediction) == answer


def test_amber_wants_the_word_alone() -> None:
    assert [read_amber(text) for text in ("yes", "No", "YES", "nO", "Yes.", "")] == [
        "yes",
        "no",
        "yes",
        "no",
        "Yes.",
        "",
    ]


def test_confusion_by_hand() -> None:
    pairs = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"), ("yes", "yes"), ("other", "no")]
    counts = Confusion.count(pairs)
    assert (counts.tp, counts.fp, counts.tn, counts.fn) == (2, 1, 2, 1)
    assert counts.precision == counts.recall == counts.f1 == pytest.approx(2 / 3)
    assert counts.accuracy == pytest.approx(4 / 6)
    # Of predictions: three of six are yes. The truth has half, too, only by chance of this example.
    assert counts.yes_ratio == 0.5
    assert Confusion.count([]).f1 == 0.0


def test_mme_category_by_hand() -> None:
    # Three of four questions, one of two images.
    assert mme_category({"a": [1.0, 1.0], "b": [1.0, 0.0]}) == 75 + 50
    assert mme_category({}) == 0.0


def test_amber_by_hand() -> None:
    pairs = [("no", "no"), ("no", "yes"), ("yes", "no"), ("yes", "yes"), ("Maybe", "no")]
    scores = amber_scores(pairs)
    # 2 of 5.001 right; 1 of 2.001 noes right; 1 of 3.001 true noes found; each rounded before the next step.
    assert scores == {"accuracy": 40.0, "precision": 50.0, "recall": 33.3, "f1": 40.0}
    # Attributes add up three counters, each of which starts at 0.001.
    assert amber_scores([("no", "no")])["recall"] == 99.9
    assert amber_scores([("no", "no")], counters=3)["recall"] == 99.7
    assert amber_scores([]) == {"accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_circular_needs_every_rotation() -> None:
    rows = [(5, 1.0), (1_000_005, 1.0), (2_000_005, 0.0), (6, 1.0), (1_000_006, 1.0), (7, 1.0)]
    assert circular_scores(rows) == {5: 0.0, 6: 1.0, 7: 1.0}


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("3", ["3", "three"], 1.0),
        ("The answer is three", ["3", "three"], 1.0),
        ("So the total is 1,250.004", ["1250"], 1.0),
        ("x = 5. y = 7", ["7"], 1.0),
        # Lines have a result each, sentences of one line have not.
        ("The speed is 5. So the time is 3", ["5"], 0.0),
        ("The speed is 5\nSo the time is 3", ["5"], 1.0),
        ("The time is 3 =", ["3"], 1.0),
        ("The cost is $6", ["6"], 1.0),
        ("Paris", ["Rome"], 0.0),
        # A letter alone counts at the start or end of a word only.
        ("acid", ["i"], 0.0),
        ("the cat", ["c"], 1.0),
        ("vitamin c", ["c"], 1.0),
        ("", ["3"], 0.0),
    ],
)
def test_mmmu_open(prediction: str, answers: list[str], score: float) -> None:
    assert open_match(prediction, answers) == score


def test_mmmu_keeps_every_value_and_not_the_characters_of_the_first() -> None:
    assert {12.0, 34.0} <= set(open_values("Result 12 and 34"))
    assert open_match("12", ["1"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "choices", "kind", "extraction"),
    [
        ("red", ["red", "blue"], "text", "red"),
        ("(B)", ["red", "blue"], "text", "B"),
        ("B).", ["red", "blue"], "text", "B"),
        ("The answer is B", ["red", "blue"], "text", "B"),
        ("The answer: (B) blue", ["red", "blue"], "text", "B"),
        # A word is not a letter.
        ("The answer is a square", ["circle", "square"], "text", None),
        ("14.5", [], "float", "14.5"),
        ('The answer is "7".', [], "integer", "7"),
        ("I count seven", [], "integer", None),
        ("14.5", [], "integer", None),
        ("nan", [], "float", "nan"),
        # Taken as it is, so that the shortest choice wins.
        ("", ["red", "blue"], "text", ""),
        ("", [], "integer", ""),
    ],
)
def test_mathvista_extracts(prediction: str, choices: list[str], kind: str, extraction: str | None) -> None:
    assert extract_by_rule(prediction, choices, kind) == extraction


@pytest.mark.parametrize(
    ("extraction", "arguments", "normal"),
    [
        ("(b)", (["red", "blue"], "multi_choice", "text", None), "blue"),
        ("B", (["red", "blue"], "multi_choice", "text", None), "blue"),
        ("It is (B) blue", (["red", "blue"], "multi_choice", "text", None), "blue"),
        # A text and not the first letter.
        ("a", (["c", "a", "b"], "multi_choice", "text", None), "a"),
        ("(z) red", (["zed", "red"], "multi_choice", "text", None), "zed"),
        ("blu", (["red", "blue"], "multi_choice", "text", None), "blue"),
        ("7.9", ([], "free_form", "integer", None), "7"),
        ("2.46", ([], "free_form", "float", 1.0), "2.5"),
        ("many", ([], "free_form", "integer", None), None),
        ("inf", ([], "free_form", "integer", None), None),
        ("2.46", ([], "free_form", "float", None), None),
        ("", (["blue", "red", "black"], "multi_choice", "text", None), "red"),
        ("[1, 2]", ([], "free_form", "list", None), "[1, 2]"),
    ],
)
def test_mathvista_normalises(extraction: str, arguments: tuple, normal: str | None) -> None:
    assert normalise_extraction(extraction, *arguments) == normal


def test_ocrbench_contains() -> None:
    assert ocr_match("The word is CENTRE.", ["centre"]) == 1.0
    assert ocr_match("ＣＥＮＴＲＥ", ["centre"]) == 0.0  # noqa: RUF001
    assert ocr_match("ＣＥＮＴＲＥ", ["centre"], fold=True) == 1.0  # noqa: RUF001
    assert ocr_match("\\frac{1}{2}", ["\\frac { 1 } { 2 }"], formula=True) == 1.0
    assert ocr_match("X + y", ["x+y"], formula=True) == 0.0
    assert ocr_match("x + y", ["x+y"]) == 0.0


def test_marked_answers() -> None:
    assert marked_match("x is -1 or -5", "-1 <AND> -5") == 1.0
    assert marked_match("x is -1", "-1 <AND> -5") == 0.5
    assert marked_match("Navy", "blue <OR> navy") == 1.0
    assert marked_match("", "blue") == 0.0


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("0.3", 0.3),
        ("**1**", 1.0),
        ("1.", 1.0),
        ("Judgement: 1", 1.0),
        ("Score for question 1: 0.3", 0.3),
        ("3/10", None),
        ("7 out of 10", None),
        ("Question 1: 3/10", None),
        ("1 of the 2 parts is right: so 0.5 or 0.6", None),
        ("Both", None),
        ("", None),
    ],
)
def test_a_mark_is_read_only_if_it_stands_alone(reply: str, mark: float | None) -> None:
    assert stated_mark(reply) == mark


def test_other_marks() -> None:
    assert two_marks("8 6\nThe second is shorter.") == two_marks("**8, 6.**") == [8.0, 6.0]
    assert [two_marks(text) for text in ("7 out of 10", "8/10 6/10", "8", "8 6 4", "")] == [None] * 5
    assert [stated_rating(text) for text in ("**Rating:** 4", "Rating: 2.", "rating: 3/6")] == [4.0, 2.0, 3.0]
    assert [stated_rating(text) for text in ("Rating: 4.5", "Rating: 3/10", "Rating: 3 out of 5", "4")] == [None] * 4
