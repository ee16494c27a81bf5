"""OCRBench v2: the metrics of its types and the averages of its groups, by hand."""

from __future__ import annotations

from typing import Any

import nltk.corpus
import pytest
from nltk.corpus.reader import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Question, Task
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
from slime_vlm.evaluation.metrics.whole_text import lacking_for_texts
from slime_vlm.evaluation.report import table
from slime_vlm.evaluation.scoring import score_task
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
    assert result["English average"] == pytest.approx(250 / 3)
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


TABLE = "<table><tr><td>a</td></tr></table>"
SPOTTED = {"bbox": "[[0, 0, 9, 0, 9, 9, 0, 9]]", "content": "['Exit']"}


def test_questions() -> None:
    assert ask("full-page OCR en").prompt == "What?"
    assert ask("VQA with position en").target["box"] == [1, 2, 3, 4]
    # The authors' file has boxes in `bbox`, the copy on the hub in `bbox_list`.
    on_hub = {"bbox": "", "bbox_list": [[0, 0, 9, 0, 9, 9, 0, 9]], "content": ["Exit"]}
    spotted = [ask("text spotting en", **fields).target for fields in (SPOTTED, on_hub)]
    assert spotted[0] == spotted[1]
    assert spotted[0]["content"] == ["Exit"]
    assert ask("table parsing en", question="As HTML?").target["format"] == "html"
    with pytest.raises(DataError, match="record 3 has the unknown type 'dancing'"):
        ask("dancing")
    with pytest.raises(DataError, match="record 3 is about text spotting, and has 4 boxes and 0 texts"):
        ask("text spotting en")


def test_scores_of_the_parsing_types() -> None:
    def score(prediction: str, kind: str, **fields: Any) -> float | None:
        return BENCHMARK.score(prediction, ask(kind, **fields).target)

    assert score("(0, 0, 9, 9, exit)", "text spotting en", **SPOTTED) == 1.0
    assert score(TABLE, "table parsing cn", answers=[TABLE]) == 1.0
    assert score("| a |\n| - |", "table parsing en", question="In Markdown?", answers=["| a |\n| - |"]) == 1.0
    assert score("{'a': 1}", "chart parsing en", answers=[{"a": 1}]) == 1.0
    assert score("# A", "document parsing cn", answers=["# B"]) == 1.0


def test_without_wordnet_there_is_no_official_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("no_such_wordnet", WordNetCorpusReader, None))
    lacking_for_texts.cache_clear()
    targets = [ask("full-page OCR en").target, ask("text recognition en").target, ask("math QA en").target]
    targets += [ask("cognition VQA cn").target]
    rows = [{"id": str(n), "prediction": "x", "target": target} for n, target in enumerate(targets)]
    result = score_task(Task(BENCHMARK, "test"), rows)
    lacking_for_texts.cache_clear()
    assert [row["score"] for row in result.rows] == [None, 1.0, 1.0, 1.0]
    assert (result.main, result.score) == (None, None)
    # The group of the text that was not scored has no number. The Chinese average is complete.
    assert "English average" not in result.metrics
    assert "text recognition" not in result.metrics
    assert result.metrics["mean of scored English groups"] == result.metrics["Chinese average"] == 100.0
    head, *lines = table([result]).splitlines()[2:]
    assert "| needs packages (see below) | – |" in head
    assert lines[-1].endswith("python -m nltk.downloader wordnet. Without that there is no official average.")


def test_a_translation_without_a_right_text_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slime_vlm.evaluation.benchmarks.ocrbench_v2.lacking_for_texts", str)
    target = ask("text translation cn", answers=[""]).target
    assert (BENCHMARK.score("x", target), BENCHMARK.score("", target)) == (None, 0.0)
