"""Benchmarks that the paper does not have: prompts, rules and summaries on the fixtures, by hand."""

from __future__ import annotations

import hashlib

import pytest

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Scored, Task
from slime_vlm.evaluation.benchmarks.charxiv_descriptive import prompt_of
from slime_vlm.evaluation.metrics.choices import mmstar_letter
from slime_vlm.evaluation.metrics.judge_reply import stated_word
from slime_vlm.evaluation.metrics.mmmu import mmmu_pro_letter
from slime_vlm.evaluation.metrics.yes_no import read_yes_no
from slime_vlm.evaluation.records import load_records
from tests.evaluation.test_benchmarks import FIXTURES, questions_of, scored


def prompt(name: str, index: int = 0) -> str:
    return questions_of(BENCHMARKS[name])[0][index].prompt


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("A", "A"),
        ("b: blue", "B"),
        ("(c)", "C"),
        ("Option D", "D"),
        ("The answer is b.", "B"),
        # Nothing but the four places counts.
        ("Answer: B", "A"),
        ("**B**", "*"),
        ("", ""),
    ],
)
def test_mmstar_reads(prediction: str, letter: str) -> None:
    assert mmstar_letter(prediction) == letter


def test_mmstar() -> None:
    assert prompt("mmstar").endswith(
        "A: red, B: blue, C: green, D: white\nAnswer with the option's letter from the given choices directly"
    )
    result = BENCHMARKS["mmstar"].summarise(scored(BENCHMARKS["mmstar"], ["A", "A", "(D)"]))
    assert result["accuracy"] == pytest.approx(200 / 3)
    assert (result["coarse perception"], result["coarse perception (image emotion)"], result["math"]) == (
        50.0,
        0.0,
        100.0,
    )
    # By lmms-eval's rule, the letter may stand at the end.
    assert BENCHMARKS["mmstar"].score("It must be A", {"answer": "A"}) == 0.0
    assert BENCHMARKS["mmstar"].other_rules["lmms-eval"].score("It must be A", {"answer": "A"}) == 1.0


def test_realworldqa() -> None:
    benchmark = BENCHMARKS["realworldqa"]
    assert prompt("realworldqa").startswith("Where is the square?\n\nA. Left\nB. Right\n")
    assert [row.score for row in scored(benchmark, ["(A) Left", "1.", "downhill"])] == [1.0, 1.0, 1.0]
    assert [row.score for row in scored(benchmark, ["a", "one", "Downhill it is"])] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("Yes.", "yes"),
        ("NO, it is", "no"),
        ("yes or no", "unknown"),
        ("nothing", "unknown"),
        ("No-one", "no"),
        ("", "unknown"),
    ],
)
def test_yes_or_no(prediction: str, answer: str) -> None:
    assert read_yes_no(prediction) == answer


def test_hallusion_bench() -> None:
    benchmark = BENCHMARKS["hallusion_bench"]
    assert prompt("hallusion_bench") == "Is the square larger than the number?"
    assert [len(question.images) for question in questions_of(benchmark)[0]] == [1, 1, 1, 0, 1]
    # Wrong is only the edited illusion: its figure, and the pair with the original.
    result = benchmark.summarise(scored(benchmark, ["Yes", "No", "Yes", "Yes", "No"]))
    assert result["aAcc by rule"] == 80.0
    # Of three figures, as the question without one is in none.
    assert result["fAcc by rule"] == pytest.approx(200 / 3)
    # Pairs: the first question on both figures, the second on one, the chart with and without its figure.
    assert result["qAcc by rule"] == pytest.approx(200 / 3)
    assert (result["VS aAcc by rule"], result["illusion qAcc by rule"]) == (100.0, 50.0)


def test_hallusion_bench_judged() -> None:
    judged = BENCHMARKS["hallusion_bench"].judged
    assert judged is not None
    questions, _ = questions_of(BENCHMARKS["hallusion_bench"])
    # Uncertainty is right only where there is nothing to see.
    marks = [judged.read("Unclear.", "", question.target) for question in questions]
    assert marks == [[0.0], [0.0], [0.0], [1.0], [0.0]]
    assert judged.read("incorrect", "", questions[0].target) == [0.0]
    assert judged.read("**correct**", "", questions[0].target) == [1.0]
    assert judged.read("It is not correct", "", questions[0].target) is None
    rows = [Scored(q.id, "", q.target, 0.0, mark) for q, mark in zip(questions, marks, strict=True)]
    assert judged.summarise(rows)["aAcc"] == 20.0


def test_one_word() -> None:
    assert [stated_word(text, ("correct", "incorrect")) for text in ('"Correct".', "incorrect", "rather correct")] == [
        "correct", "incorrect", None
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("Answer: J", "J"),
        ("Answer: (B) because", "B"),
        # Two letters after it: the other rules decide, as without it.
        ("C. Answer: A or B", "B"),
        ("The letter is D.", "D"),
    ],
)
def test_mmmu_pro_reads(prediction: str, letter: str) -> None:
    assert mmmu_pro_letter(prediction, [f"option {n}" for n in range(10)], "q") == (letter, False)


def test_mmmu_pro() -> None:
    questions, _ = questions_of(BENCHMARKS["mmmu_pro_standard"])
    assert questions[0].prompt.startswith("[image] What does the chart show?\nA. answer a\nB. answer b\n")
    assert questions[0].prompt.endswith("\nJ. answer j\nAnswer with the option letter from the given choices directly.")
    # In the order of the text.
    assert [len(question.images) for question in questions] == [1, 1, 2]
    assert questions[2].images == (questions[2].images[0], questions[0].images[0])
    benchmark = BENCHMARKS["mmmu_pro_vision"]
    result = benchmark.summarise(scored(benchmark, ["Answer: J", "Answer: A", "C"]))
    assert (result["accuracy"], result["subject Accounting"], result["letters drawn"]) == (
        pytest.approx(200 / 3),
        50.0,
        0.0,
    )


def test_charxiv() -> None:
    benchmark = BENCHMARKS["charxiv_reasoning"]
    assert prompt("charxiv_reasoning", 2) == (
        "What is the difference?\n    * Your final answer must be a number with 2 decimal places.\n    "
    )
    assert prompt("charxiv_reasoning", 1).count("\n    ") == 3
    assert benchmark.judged is not None
    questions, _ = questions_of(benchmark)
    replies = ['{"extracted_answer": "red", "score": 1}', "0", '{"score": 0.5}', "1/1", "[]"]
    assert [benchmark.judged.read(text, "", questions[0].target) for text in replies] == [
        [1.0],
        [0.0],
        None,
        None,
        None,
    ]
    rows = [Scored(q.id, "", q.target, None, [float(n == 0)]) for n, q in enumerate(questions)]
    assert benchmark.judged.summarise(rows) == {
        "accuracy": pytest.approx(100 / 3), "number in chart": 0.0, "number in general": 0.0, "text in chart": 100.0,
        "inspired by GPT": pytest.approx(100 / 3), "subject cs": pytest.approx(100 / 3),
        "year 2020": pytest.approx(100 / 3), "1 subplot": 100.0, "2-4 subplots": 0.0, "5+ subplots": 0.0,
    }  # fmt: skip
    record = {"reasoning_q": "?", "reasoning_a": "1", "figure_path": "x", "image": "x", "reasoning_a_type": 5}
    with pytest.raises(DataError, match="record 7 has the type of answer 5, expected 1 to 4"):
        benchmark.ask(record, 7)


def test_prompts_of_charxiv_are_the_official_ones() -> None:
    """The hash is that of the authors' 19 prompts, for the current plot, one after the other."""
    prompts = "".join(prompt_of(template, "For the current plot, ") for template in range(1, 20))
    assert hashlib.sha256(prompts.encode()).hexdigest() == (
        "43ac9cd9981c59f4e8b4ca49e25370ad8358ccc03fce546983c169b9180b182e"
    )


def test_charxiv_descriptive() -> None:
    benchmark = BENCHMARKS["charxiv_descriptive"]
    questions, _ = questions_of(benchmark)
    assert [question.id for question in questions] == [f"{n}.jpg#{number}" for n in range(3) for number in (1, 2, 3, 4)]
    assert questions[0].prompt.startswith("For the current plot, what is the spatially highest labeled tick on the y")
    assert questions[4].prompt.startswith("For the subplot at row 1 and column 1, how many discrete labels are there")
    assert questions[8].prompt.startswith("For the red panel, What is the total number of explicitly labeled ticks")
    whole = [question.prompt for question in questions if question.target["template"] in (18, 19)]
    assert all(text.startswith("What is the ") for text in whole)
    assert len(whole) >= 1
    judged = benchmark.judged
    assert judged is not None
    asked = judged.request("fourteen", questions[0].target, judged.template)
    assert asked is not None
    assert "Right answer: answer 1\nGiven answer: fourteen\n" in asked
    assert "It must be the same term." in asked
    rows = [Scored(q.id, "", q.target, None, [float(n < 4)] if n else None) for n, q in enumerate(questions)]
    found = judged.summarise(rows)
    # An unreadable reply counts 0, as in the official script.
    assert found["accuracy"] == pytest.approx(100 * 3 / 12)
    assert (found["1 subplot"], found["2-4 subplots"], found["5+ subplots"]) == (75.0, 0.0, 0.0)
    names = {"information extraction", "enumeration", "pattern recognition", "counting", "compositionality"}
    assert names & set(found) == {q.target["category"] for q in questions}
    record = {**dict.fromkeys(benchmark.fields, "x"), "descriptive_q2": 20}
    with pytest.raises(DataError, match="record 1 has the question 20, expected 1 to 19"):
        benchmark.ask(record, 5)


def test_limits_count_questions() -> None:
    task = Task(BENCHMARKS["charxiv_descriptive"], "validation")
    records = load_records(task, FIXTURES, offset=3, limit=6)
    assert records.length == 6
    assert [row["figure_path"] for row in records.rows] == ["0.jpg", *["1.jpg"] * 4, "2.jpg"]
    records = load_records(task, FIXTURES, offset=3)
    assert records.length == len(list(records.rows)) == 9
