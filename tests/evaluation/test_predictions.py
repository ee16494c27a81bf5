"""Predictions on disk survive a kill at any byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.errors import DataError
from slime_vlm.evaluation.predictions import FILE, PredictionStore, read_rows


def row(index: int, text: str = "no") -> dict[str, Any]:
    return {"task": "pope", "place": index, "id": f"q{index}", "prediction": text, "target": {}}


def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "whole")
    store.append([row(0, "nö 🙂\u2028x"), row(1, "\ud800")])
    store.append([row(2)])
    content = (tmp_path / "whole" / "predictions.part0.jsonl").read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == 10]
    assert len(ends) == 3
    for cut in range(len(content) + 1):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        (folder / "predictions.part0.jsonl").write_bytes(content[:cut])
        again = PredictionStore(folder)
        whole = sum(end <= cut for end in ends)
        assert list(again.done()) == ["q0", "q1", "q2"][:whole]
        again.append([row(9)])
        assert list(again.done()) == [*["q0", "q1", "q2"][:whole], "q9"]


def test_parts_are_merged_in_the_order_of_the_questions(tmp_path: Path) -> None:
    PredictionStore(tmp_path, 1).append([row(1), row(3)])
    PredictionStore(tmp_path, 0).append([row(0), row(2)])
    rows = PredictionStore(tmp_path, 0).merge()
    assert [r["place"] for r in rows] == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    # A later run finds the merged file, and adds to it.
    store = PredictionStore(tmp_path, 0)
    assert len(store.done()) == 4
    store.append([row(4)])
    assert [r["place"] for r in store.merge()] == [0, 1, 2, 3, 4]
    assert list(read_rows(tmp_path / FILE)) == store.merge()


@pytest.mark.parametrize("change", [{"task": ["pope"]}, {"prediction": 5}, {"target": "yes"}, {"place": "x"}])
def test_what_is_no_prediction_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for wrong in ({"task": "pope"}, {**row(0), **change}, 5):
        path.write_text(f"{json.dumps(wrong)}\n{{}}\n")
        with pytest.raises(DataError, match="line 1 is not a prediction"):
            list(read_rows(path))
    path.write_text("\n")
    assert list(read_rows(path)) == []
