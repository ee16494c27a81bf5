"""What the official scripts print beside the main number, on the fixtures, by hand."""

from __future__ import annotations

import pytest

from slime_vlm.evaluation.benchmarks import BENCHMARKS, Scored
from tests.evaluation.test_benchmarks import questions_of, scored


def numbers(name: str, *predictions: str) -> dict[str, float]:
    return BENCHMARKS[name].summarise(scored(BENCHMARKS[name], list(predictions)))


def test_vqav2_by_answer_type() -> None:
    # The fixture has three questions of the type other, all answered red.
    assert numbers("vqav2", "red", "red", "red") == {
        "accuracy": pytest.approx(100 / 3), "answer type other": pytest.approx(100 / 3)
    }  # fmt: skip


def test_mmmu_by_subject() -> None:
    result = numbers("mmmu", "C", "A", "3")
    assert result["subject Accounting"] == result["Business"] == 100.0
    assert result["subject Physics"] == result["Science"] == 0.0


def test_mmbench_by_l2_category() -> None:
    result = numbers("mmbench", "A", "A", "A")
    assert result["L2 attribute_reasoning"] == result["identity_reasoning"] == 50.0


def test_amber_by_kind_of_attribute() -> None:
    result = numbers("amber", "Yes", "No", "Yes")
    # One question each: about a state, existence, a relation. One of 3.001 counts, in three counters of attributes.
    assert (result["accuracy"], result["state accuracy"], result["attribute accuracy"]) == (66.6, 99.9, 99.7)
    assert (result["existence recall"], result["relation recall"]) == (99.9, 0.0)
    assert not any(name.startswith(("number", "action")) for name in result)


def test_amber_prompts() -> None:
    assert questions_of(BENCHMARKS["amber"])[0][0].prompt == "Is the square red in this image?"
    assert questions_of(BENCHMARKS["amber_short"])[0][0].prompt.endswith(
        "image?\nAnswer the question using a single word or phrase."
    )


def test_mathvista_by_every_grouping() -> None:
    result = numbers("mathvista", "red", "2", "2.5")
    assert result["accuracy by rule"] == result["skill: numeric commonsense"] == pytest.approx(200 / 3)
    assert result["question_type: multi_choice"] == result["answer_type: float"] == 100.0
    assert result["question_type: free_form"] == result["task: figure QA"] == 50.0
    for grouping in ("language", "source", "category", "context", "grade"):
        assert [value for name, value in result.items() if name.startswith(f"{grouping}: ")] == [pytest.approx(200 / 3)]


def test_mathverse_by_subject() -> None:
    result = numbers("mathverse", "A", "B", "2.5")
    # The text-only version is no part of the score, nor of the subjects.
    assert result["Text Only"] == 100.0
    assert result["accuracy by rule"] == result["Plane Geometry"] == result["Plane Geometry: Length"] == 50.0


def test_attributes_are_one_sub_task() -> None:
    benchmark = BENCHMARKS["mme_realworld"]
    record = {
        "index": 1, "bytes": "", "question": "Which?", "answer": "A", "category": "Perception/Monitoring",
        "multi-choice options": ["(A) a", "(B) b", "(C) c", "(D) d", "(E) e"],
    }  # fmt: skip
    names = ["Vehicle attribute/color", "vehicle attribute/Type", "Person attribute", "Vehicle counting"]
    targets = [benchmark.ask({**record, "l2-category": name}, 0).target for name in names]
    result = benchmark.summarise([Scored(str(n), "", one, float(n > 0)) for n, one in enumerate(targets)])
    assert result["Perception/Monitoring/vehicle attribute/attribute"] == 50.0
    assert result["Perception/Monitoring/person attribute/attribute"] == 100.0
    assert result["mean of sub-tasks"] == pytest.approx(250 / 3)
    assert result["accuracy"] == 75.0


def test_realworld_prompt() -> None:
    prompt = questions_of(BENCHMARKS["mme_realworld"])[0][0].prompt
    assert prompt.startswith("What colour is the sign? The choices are listed below: \n(A) red\n")
    assert prompt.endswith("of the correct option.\nThe best answer is:")


def test_mathvision_prompts() -> None:
    questions, _ = questions_of(BENCHMARKS["mathvision"])
    suffix = "\nAnswer the question using a single word or phrase."
    assert questions[0].prompt == f"<image1> How many squares?\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5\n{suffix}"
    assert questions[1].prompt == f"<image1> What part is coloured?\n{suffix}"
    record = {"id": "1", "question": "Which?", "options": list("ABCDE"), "answer": "A", "image": "x"}
    # Options that are only their letters stand in the figure.
    assert BENCHMARKS["mathvision"].ask(record, 0).prompt == f"Which?\n{suffix}"


def test_mathvision_by_level_of_subject() -> None:
    result = numbers("mathvision", "A", "1", "1")
    assert result["counting, level 1"] == result["counting"] == result["level 1"] == 100.0
    assert result["analytic geometry, level 3"] == 0.0


def test_rows_of_earlier_versions_have_no_groups() -> None:
    benchmark = BENCHMARKS["vqav2"]
    assert benchmark.summarise([Scored("1", "red", {"answers": ["red"] * 10}, 1.0)]) == {"accuracy": 100.0}
