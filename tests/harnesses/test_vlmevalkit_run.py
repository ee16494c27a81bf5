"""VLMEvalKit runs the model. Skipped if it is not installed, see docs/evaluation.md."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import slime_vlm
from slime_vlm.inference.answering import ask
from slime_vlm.media import open_image
from slime_vlm.pages import PageSettings, write_pages

if importlib.util.find_spec("vlmeval") is None:
    pytest.skip("VLMEvalKit is not installed here, see docs/evaluation.md", allow_module_level=True)

import pandas as pd

ROOT = Path(__file__).parents[2]
SHORT = 24


def launch(folder: Path, *arguments: str) -> str:
    """Run the launcher on the tables in `folder/LMUData`, and return its output."""
    command = [sys.executable, "-m", "slime_vlm.harnesses.vlmevalkit", "--model", "nano", "--device", "cpu"]
    command += ["--dtype", "float32", "--max-new-tokens", str(SHORT), "--work-dir", "out", *arguments]
    environment = {**os.environ, "LMUData": str(folder / "LMUData"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_launcher_answers_as_ask_does(tmp_path: Path) -> None:
    """The shipped model on the example's table, against one question after another."""
    settings = PageSettings(kinds={"form": 1.0}, tiles=(1, 3), page_scale=(1.0, 1.2), split="heldout", questions=5)
    write_pages(tmp_path / "pages", 2, 7, settings)
    script = ROOT / "examples" / "vlmevalkit" / "pages_tsv.py"
    table = tmp_path / "LMUData" / "SlimePages.tsv"
    subprocess.run([sys.executable, str(script), "pages", str(table)], cwd=tmp_path, check=True)
    said = launch(tmp_path, "--data", "SlimePages", "--mode", "infer")
    files = list((tmp_path / "out").rglob("slime-nano_SlimePages.xlsx"))
    assert len(files) == 1, said
    rows = pd.read_excel(files[0], dtype=str, keep_default_na=False)

    model, processor = slime_vlm.load("nano", "cpu", "float32")
    expected = []
    for line in (tmp_path / "pages" / "pages.jsonl").read_text().splitlines():
        record = json.loads(line)
        texts = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"][::2]]
        page = open_image(tmp_path / "pages" / record["image"])
        expected += [(one.question, one.text) for one in ask(model, processor, page, texts, max_new_tokens=SHORT)]
    assert len(expected) == 10
    assert list(zip(rows["question"], rows["prediction"], strict=True)) == expected
    assert len({answer for _, answer in expected}) > 2, "the comparison needs answers that differ"


def test_choices_are_scored_by_vlmevalkit(tmp_path: Path) -> None:
    settings = PageSettings(kinds={"form": 1.0}, tiles=(1, 3), page_scale=(1.0, 1.2), split="heldout", questions=2)
    write_pages(tmp_path / "pages", 2, 7, settings)
    script = ROOT / "examples" / "vlmevalkit" / "pages_tsv.py"
    table = tmp_path / "LMUData" / "SlimeChoices.tsv"
    subprocess.run([sys.executable, str(script), "pages", str(table)], cwd=tmp_path, check=True)
    # Two options make it a table of choices.
    rows = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False)
    rows = rows.assign(A=rows["answer"], B="a whale", answer="A")
    rows.to_csv(table, sep="\t", index=False)
    said = launch(tmp_path, "--data", "SlimeChoices", "--judge", "exact_matching")
    scored = list((tmp_path / "out").rglob("slime-nano_SlimeChoices_acc.csv"))
    assert len(scored) == 1, said
    assert 0.0 <= float(pd.read_csv(scored[0])["Overall"][0]) <= 1.0
    listed = pd.read_excel(next((tmp_path / "out").rglob("slime-nano_SlimeChoices.xlsx")))
    assert list(listed["question"]) == list(rows["question"])
