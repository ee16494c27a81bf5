"""Two runs against each other, on hand-made predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slime_vlm.cli import app
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.evaluation.benchmarks import BENCHMARKS
from slime_vlm.evaluation.comparison import compare_runs, comparison_table
from slime_vlm.evaluation.statistics import accuracy_interval, difference_interval
from tests.evaluation.test_benchmarks import questions_of


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chart(number: int, prediction: str, answer: str = "14") -> dict[str, Any]:
    target = {"answer": answer, "type": "human_test"}
    return {"task": "chartqa", "place": number, "id": str(number), "prediction": prediction, "target": target}


def of_fixture(name: str, *predictions: str) -> list[dict[str, Any]]:
    questions, _ = questions_of(BENCHMARKS[name])
    return [
        {"task": name, "place": place, "id": q.id, "prediction": text, "target": q.target}
        for place, (q, text) in enumerate(zip(questions, predictions, strict=True))
    ]


def test_by_hand(tmp_path: Path) -> None:
    # Of 20 questions the first has 15 right, the second 18: it loses one of them and wins four others.
    first = write(tmp_path / "a.jsonl", [chart(n, "14" if n < 15 else "9") for n in range(20)])
    second = write(tmp_path / "b.jsonl", [chart(n, "9" if n in (0, 19) else "14") for n in range(20)])
    (one,) = compare_runs(first, second)
    assert (one.task, one.questions, one.units) == ("chartqa", 20, 20)
    assert (one.first[0], one.second[0], one.difference[0]) == (0.75, 0.9, pytest.approx(0.15))
    assert (one.only_first, one.only_second) == (1, 4)
    # Two-sided, of five tosses at most one on one side: 2 * (1 + 5) / 32.
    assert one.p_value == 0.375
    pairs = [(float(n not in (0, 19)), float(n < 15), 1) for n in range(20)]
    assert one.difference == difference_interval(pairs)
    assert one.first[1:] == accuracy_interval([(float(n < 15), 1) for n in range(20)])
    line = comparison_table([one]).splitlines()[2]
    assert line.startswith("| chartqa | 20 | 75.0 [")
    assert line.endswith("| 1 | 4 | 0.38 |")
    # The other way round is the same with another sign.
    (back,) = compare_runs(second, first)
    assert back.difference == pytest.approx((-one.difference[0], -one.difference[2], -one.difference[1]))
    assert back.p_value == one.p_value


def test_the_same_predictions_do_not_differ(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [chart(n, "14" if n % 3 else "9") for n in range(30)])
    (one,) = compare_runs(path, path)
    assert one.difference[0] == 0.0
    # No difference on 30 questions does not prove that there is none.
    assert one.difference[2] == -one.difference[1] > 0.1
    assert (one.only_first, one.only_second, one.p_value) == (0, 0, 1.0)


def test_only_shared_questions_count(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [chart(n, "14") for n in range(10)])
    second = write(tmp_path / "b.jsonl", [chart(n, "9") for n in range(5, 15)])
    lines: list[str] = []
    (one,) = compare_runs(first, second, report=lines.append)
    assert (one.questions, one.first[0], one.second[0]) == (5, 1.0, 0.0)
    assert lines == ["chartqa: 5 of 10 and 10 questions are compared"]


def test_tasks_that_only_one_run_has_are_named(tmp_path: Path) -> None:
    rows = [chart(n, "14") for n in range(3)]
    first = write(
        tmp_path / "a.jsonl", [*rows, *({**row, "task": "docvqa", "target": {"answers": ["14"]}} for row in rows)]
    )
    second = write(tmp_path / "b.jsonl", rows)
    lines: list[str] = []
    assert len(compare_runs(first, second, report=lines.append)) == 1
    assert lines == [f"docvqa is left out: only {first} has it"]


def test_questions_that_belong_together_are_one_unit(tmp_path: Path) -> None:
    # MMBench: the first question is right if both rotations are. MME: two questions about an image.
    first = write(tmp_path / "a" / "mmbench.jsonl", of_fixture("mmbench", "A", "B", "A"))
    second = write(tmp_path / "b" / "mmbench.jsonl", of_fixture("mmbench", "A", "A", "A"))
    (one,) = compare_runs(first, second)
    assert (one.questions, one.units, one.first[0], one.second[0], one.only_first) == (3, 2, 1.0, 0.5, 1)
    first = write(tmp_path / "a" / "mme.jsonl", of_fixture("mme", "Yes", "No", "Yes", "No", "Yes", "No"))
    second = write(tmp_path / "b" / "mme.jsonl", of_fixture("mme", "Yes", "No", "Yes", "Yes", "No", "No"))
    (one,) = compare_runs(first, second)
    assert (one.questions, one.units, one.second[0], one.p_value) == (6, 3, pytest.approx(4 / 6), None)
    assert "| 6 in 3 units |" in comparison_table([one])
    assert comparison_table([one]).endswith("| – | – | – |")


def test_another_rule(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", of_fixture("gqa", "red!", "no", "square"))
    second = write(tmp_path / "b.jsonl", of_fixture("gqa", "red", "no", "square"))
    assert compare_runs(first, second)[0].only_second == 1
    assert compare_runs(first, second, rule="lmms-eval")[0].only_second == 0
    with pytest.raises(ConfigError, match="--rule slime: none of gqa has it, known are lmms-eval"):
        compare_runs(first, second, rule="slime")


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [chart(1, "14")])
    other = write(tmp_path / "b.jsonl", of_fixture("gqa", "red", "no", "square"))
    with pytest.raises(DataError, match=r"\(chartqa\) and .* \(gqa\) share no question"):
        compare_runs(first, other)
    with pytest.raises(DataError, match="question 1 has another right answer"):
        compare_runs(first, write(tmp_path / "c.jsonl", [chart(1, "14", answer="15")]))
    judged = write(tmp_path / "d.jsonl", of_fixture("mm_vet", "-1", "navy", "2"))
    with pytest.raises(DataError, match="share no question that a rule scores"):
        compare_runs(judged, judged)


def test_command(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "chartqa" / "predictions.jsonl", [chart(n, "14") for n in range(4)])
    second = write(tmp_path / "b" / "chartqa" / "predictions.jsonl", [chart(n, "9") for n in range(4)])
    folders = [str(first.parent.parent), str(second.parent.parent)]
    shown = CliRunner().invoke(app, ["eval", "compare", *folders])
    assert shown.exit_code == 0, shown.output
    assert "| chartqa | 4 | 100.0 [" in shown.output
    data = CliRunner().invoke(app, ["eval", "compare", *folders, "--json"])
    assert json.loads(data.output)[0]["only_first"] == 4
