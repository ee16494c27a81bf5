"""The script that trains the language side of a page model, on a few sheets."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from slime_vlm.pages.text_page import read_text_pages, write_text_pages
from slime_vlm.pages.text_sheets import SheetSettings, TextSheets
from slime_vlm.pages.word_lists import read_words

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


def test_text_pages_are_read_as_they_were_written(tmp_path: Path) -> None:
    page = TextSheets(read_words(None), SheetSettings(lines=(5, 5))).page(0)
    write_text_pages(tmp_path / "pages.jsonl.gz", [page])
    (found,) = read_text_pages(tmp_path / "pages.jsonl.gz")
    assert (found.characters, found.size, found.lines.tolist()) == (page.characters, page.size, page.lines.tolist())
    assert abs(found.boxes - page.boxes).max() < 0.06
    for read, written in zip(found.questions, page.questions, strict=True):
        assert (read.text, read.answer, read.value.tolist()) == (written.text, written.answer, written.value.tolist())
    assert [key.tolist() for key, _ in found.facts] == [key.tolist() for key, _ in page.facts]
