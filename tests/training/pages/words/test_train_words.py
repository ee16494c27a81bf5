"""The script that trains the language side of a page model, on a few sheets."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from slime_vlm.model.answer_finder import AnswerFinder
from slime_vlm.pages.text_page import read_text_pages, write_text_pages
from slime_vlm.pages.text_sheets import SheetSettings, TextSheets
from slime_vlm.pages.word_lists import read_words
from slime_vlm.training.pages.words.answerer import AnswererSettings, PageAnswerer

_SCRIPT = Path(__file__).parents[4] / "scripts" / "train_words.py"


@pytest.fixture
def script() -> Any:
    spec = importlib.util.spec_from_file_location("train_words", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.TESTS = dict(list(module.TESTS.items())[:1])
    module.MORE_TESTS = {}
    module.BUDGET_LINES = (12,)
    return module


def run(script: Any, monkeypatch: pytest.MonkeyPatch, out: Path, *more: str) -> list[dict[str, Any]]:
    options = ["--dim", "32", "--layers", "2", "--eval-pages", "1", "--cell", "16", "32"]
    monkeypatch.setattr(sys, "argv", ["train_words.py", str(out), *options, *more])
    script.main()
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_trains_goes_on_and_measures(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages = tmp_path / "pages.jsonl.gz"
    sheets = TextSheets(read_words(None), SheetSettings(lines=(3, 3)))
    assert write_text_pages(pages, (sheets.page(seed) for seed in range(2))) == 2
    out = tmp_path / "out"
    first = run(script, monkeypatch, out, "--cpu-minutes", "0.02")
    assert 0.0 <= first[-1]["12 lines, best 128 tokens"]["selected"] <= 1.0
    before = load_file(out / "words.safetensors")
    more = ("--cpu-minutes", "0.05", "--pages", str(pages), "--heldout-pages", str(pages))
    second = run(script, monkeypatch, out, *more)
    assert second[-1]["step"] > first[-1]["step"]
    assert 0.0 <= second[-1]["printed_best_128"]["exact"] <= 1.0
    after = load_file(out / "words.safetensors")
    assert any((before[name] != after[name]).any() for name in before)


def sheets_file(path: Path) -> Path:
    sheets = TextSheets(read_words(None), SheetSettings(lines=(12, 20)))
    write_text_pages(path, (sheets.page(seed) for seed in range(4)))
    return path


@pytest.mark.parametrize(
    ("share", "learning"),
    [
        ("--finder", {"answer_finder"}),
        ("--look", {"answer_finder", "open_vocabulary", "projector", "page_positions", "log_scale"}),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.slow
def test_what_does_not_learn_yet_stays_as_it_is(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: str, learning: set[str], processes: int
) -> None:
    start, out = tmp_path / "start", tmp_path / "out"
    run(script, monkeypatch, start, "--cpu-minutes", "0.005")
    before = load_file(start / "words.safetensors")
    sheets = sheets_file(tmp_path / "pages.jsonl.gz")
    options = ["--start", str(start / "words.safetensors"), "--pages", str(sheets), "--cpu-minutes", "0.02", share, "1"]
    if processes == 1:
        run(script, monkeypatch, out, *options)
    else:
        several = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--", str(_SCRIPT), str(out)]
        small = ["--dim", "32", "--layers", "2", "--eval-pages", "1", "--cell", "16", "32"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*several, *small, *options], check=True, capture_output=True, env=environment)
    after = load_file(out / "words.safetensors")
    changed = {name.partition(".")[0] for name in before if (before[name] != after[name]).any()}
    assert changed == learning
    # The language model is told nothing yet.
    assert before["answer_finder.told.weight"].equal(after["answer_finder.told.weight"])


def test_a_finder_of_another_size_begins_anew(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    other = PageAnswerer(AnswererSettings(dim=32, layers=2))
    other.answer_finder = AnswerFinder(word_dim=128, text_dim=32, dim=32)
    with torch.no_grad():
        assert other.answer_finder is not None
        other.answer_finder.trust.fill_(7.0)
        other.log_scale.fill_(3.0)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), "--dim", "32", "--layers", "2", "--start"])
    sys.argv.append(str(tmp_path / "other.safetensors"))
    model = script.Run(script.arguments()).model
    assert float(model.log_scale) == 3.0
    assert float(model.answer_finder.trust) == 1.0
    # Nor does an unfinished run of other sizes go on.
    torch.save({"model": other.state_dict()}, tmp_path / "state.pt")
    with pytest.raises(SystemExit, match=r"state\.pt is of a model of other parts or sizes, train into a new folder"):
        script.Run(script.arguments())
    sys.argv[-2:] = ["--finder", "0.5", "--no-finder"]
    with pytest.raises(SystemExit):
        script.arguments()
    assert "--finder trains the answer finder, which there is none of" in capsys.readouterr().err


def test_a_step_asks_a_few_questions_about_a_page(script: Any) -> None:
    page = TextSheets(read_words(None), SheetSettings(lines=(40, 40), questions=20)).page(0)
    asked = script.some_questions(page, np.random.default_rng(0)).questions
    assert len(page.questions) > len(asked) == script.MOST_QUESTIONS
    texts = [question.text for question in page.questions]
    places = [texts.index(question.text) for question in asked]
    assert places == sorted(set(places))


def test_text_pages_are_read_as_they_were_written(tmp_path: Path) -> None:
    page = TextSheets(read_words(None), SheetSettings(lines=(5, 5))).page(0)
    write_text_pages(tmp_path / "pages.jsonl.gz", [page])
    (found,) = read_text_pages(tmp_path / "pages.jsonl.gz")
    assert (found.characters, found.size, found.lines.tolist()) == (page.characters, page.size, page.lines.tolist())
    assert abs(found.boxes - page.boxes).max() < 0.06
    for read, written in zip(found.questions, page.questions, strict=True):
        assert (read.text, read.answer, read.value.tolist()) == (written.text, written.answer, written.value.tolist())
    assert [key.tolist() for key, _ in found.facts] == [key.tolist() for key, _ in page.facts]
