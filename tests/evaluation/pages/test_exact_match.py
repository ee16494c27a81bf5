"""Metrics by hand, and the evaluation on pages from end to end with a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slime_vlm.checkpoints.loading import load
from slime_vlm.cli import app
from slime_vlm.cli.eval.pages import MODES
from slime_vlm.errors import ConfigError
from slime_vlm.evaluation.metrics import exact_match
from slime_vlm.evaluation.pages.exact_match import PagePrediction, answer_pages, summarise
from slime_vlm.pages import ABSENT, PageSettings
from tests.tiny_reader import save_tiny_reader, tiny_reader

SETTINGS = PageSettings(tiles=(2, 2), page_scale=(0.8, 1.3), kinds={"form": 1.0}, split="heldout", questions=3)
PREDICTION = PagePrediction(
    seed=1,
    kind="form",
    question="total?",
    answer="12.50",
    prediction="12.50",
    correct=1.0,
    num_global=4,
    num_local=20,
    num_kept=10,
    seconds=0.5,
)


@pytest.mark.parametrize(
    ("prediction", "answer", "value"),
    [
        ("12.50", "12.50", 1.0),
        (" 12  May ", "12 May", 1.0),
        ("12.5", "12.50", 0.0),
        ("may", "May", 0.0),
        ("", "x", 0.0),
    ],
)
def test_exact_match(prediction: str, answer: str, value: float) -> None:
    assert exact_match(prediction, answer) == value


def test_summary_by_hand() -> None:
    answers = [
        PREDICTION,
        replace(PREDICTION, correct=0.0, num_kept=20, kind="invoice"),
        replace(PREDICTION, kind="map", correct=0.0, num_kept=0),
        replace(PREDICTION, answer=ABSENT, correct=1.0),
    ]
    result = summarise(answers)
    assert result["key-value"]["exact_match"] == 0.5
    assert result["key-value"]["kept_tokens"] == 15
    assert result["scene"]["questions"] == 1
    # What is not on the page has a group of its own and does not lift the mean.
    assert result["absent"]["exact_match"] == 1.0
    assert result["all"]["questions"] == 3
    assert result["all"]["exact_match"] == pytest.approx(1 / 3)


def test_pages_are_asked_every_question() -> None:
    model, processor = tiny_reader()
    seen = list(answer_pages(model, processor, SETTINGS, count=2))
    blind = list(answer_pages(model, processor, SETTINGS, count=2, blind=True))
    assert len(seen) == len(blind) == 6
    assert [a.question for a in seen] == [a.question for a in blind]
    assert len({a.seed for a in seen}) == 2
    assert all(0 < a.num_kept <= a.num_local and a.seconds > 0 for a in seen)
    assert [a.prediction for a in seen] != [a.prediction for a in blind]


@pytest.mark.parametrize("end", ["read", "left", "failed"])
def test_the_budget_is_the_model_s_own_again(end: str) -> None:
    model, processor = tiny_reader(max_local_tokens=3)
    answers = answer_pages(model, processor, SETTINGS, count=1, keep_share=0.5)
    first = next(answers)
    assert first.num_kept == first.num_local // 2
    if end == "read":
        assert len(list(answers)) == 2
    elif end == "left":
        answers.close()
    else:
        with pytest.raises(ZeroDivisionError):
            answers.throw(ZeroDivisionError)
    assert model.config.max_local_tokens == 3


def test_a_share_needs_a_selector() -> None:
    with pytest.raises(ConfigError, match="has no selector"):
        next(answer_pages(*tiny_reader(selector="none"), SETTINGS, count=1, keep_share=0.5))


def test_command_prints_a_table_and_writes_predictions(tmp_path: Path) -> None:
    folder, out = save_tiny_reader(tmp_path / "model"), tmp_path / "answers.jsonl"
    arguments = [
        "eval",
        "pages",
        "--model",
        str(folder),
        "--tiles",
        "2",
        "-n",
        "1",
        "--mode",
        "slime",
        "--mode",
        "global",
    ]
    result = CliRunner().invoke(app, [*arguments, "--budget", "50", "--kind", "form", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "Loading weights" not in result.output
    rows = [line for line in result.output.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["mode", "---", "slime", "global", "best 50%"]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["mode"] for line in lines} == {"slime", "global", "best 50%"}
    assert all(line["num_kept"] == line["num_local"] // 2 for line in lines if line["mode"] == "best 50%")


def test_every_mode_takes_a_model_with_a_budget(tmp_path: Path) -> None:
    folder = save_tiny_reader(tmp_path / "model", max_local_tokens=3)
    for overrides in MODES.values():
        load(folder, **overrides)


def test_unknown_mode_is_named() -> None:
    result = CliRunner().invoke(app, ["eval", "pages", "--mode", "glob"])
    assert isinstance(result.exception, ConfigError)
    assert "expected one of slime, all-local, global, blind" in str(result.exception)
