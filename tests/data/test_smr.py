"""SMR from raw sets: every converter on rows of the real layout, and every skipped row is reported."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.cli import main
from slime_vlm.data import open_source
from slime_vlm.data.check import check_source
from slime_vlm.data.smr import SETS, build_smr
from slime_vlm.data.smr.safe_pickle import read_pickle
from slime_vlm.errors import ConfigError, DataError
from tests.data.raw_sets import MAKERS
from tests.data.writing import make_image, turns, write_lines

# Short name: number of records, skipped rows by reason, a question, an answer.
EXPECTED: dict[str, tuple[int, dict[str, int], str, str]] = {
    "arxivqa": (
        3,
        {"no label or choices": 1},
        "<image>\nWhat does curve 0 show?\nA. a rise\nB. a fall\nC. noise\nD. none of these",
        "The curve bends.\nSo the answer is B.",
    ),
    "dvqa": (
        3,
        {"the image is missing": 1},
        "<image>\nHow many bars are there?\nAnswer with a single word or phrase.",
        "three",
    ),
    "chartqa": (3, {}, "<image>\nWhich year is highest?\nAnswer with a single word or phrase.", "2014"),
    "geometry3k": (
        3,
        {"a problem of the test split": 1},
        "<image>\nFind x.\nA. 10\nB. 20\nC. 30\nD. 40\nAnswer with the letter of the right choice.",
        "C",
    ),
    "geoqa3": (3, {}, "<image>\n如图求∠A的度数\nA. 30°\nB. 40°\nC. 50°\nD. 60°", "由题意得\n故选A"),
    "geoqa_plus": (3, {}, "<image>\n∠A?", "A"),
    "mathvision": (
        3,
        {"held out for test-mini": 2},
        "<image>\nHow many cubes?\nA. 1\nB. 2",
        "Count them.\nThe answer is B.",
    ),
    "scienceqa": (
        2,
        {},
        "<image>\nContext: Look at the picture.\nWhich is a mammal?\nA. dog\nB. ant",
        "Mammals have hair.\nThe answer is A.",
    ),
    "tabmwp": (3, {}, "<image>\nHow much is a pen?", "Find the pen in the table.\nThe answer is $2."),
    "textbookqa": (
        3,
        {"the right answer is not among the choices": 1, "a teaching image without a text": 1},
        "<image>\nWhich is A?\nA. leaf\nB. root\nAnswer with the letter of the right choice.",
        "B",
    ),
    "ai2d": (
        4,
        {"held out for the test split": 2},
        "<image>\nWhat is A?\nA. leaf\nB. root\nC. stem\nD. seed\nAnswer with the letter of the right choice.",
        "B",
    ),
}


def make_root(folder: Path, *names: str) -> Path:
    for name in names or SETS:
        MAKERS[name](folder / SETS[name].folder)
    return folder


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_there_are_eleven_sets() -> None:
    assert set(SETS) == set(MAKERS) == set(EXPECTED)
    assert len(SETS) == 11
    assert len({raw.folder for raw in SETS.values()}) == 11
    assert all(raw.licence and raw.origin and raw.files and raw.count_source for raw in SETS.values())


@pytest.mark.parametrize("name", EXPECTED)
def test_converters(name: str, tmp_path: Path) -> None:
    root, out = make_root(tmp_path / "raw", name), tmp_path / "smr.jsonl"
    (built,) = build_smr(root, out, only=[name], with_leak=True)
    count, skipped, question, answer = EXPECTED[name]
    records = read(out)
    assert (built.state, built.records, dict(built.skipped)) == ("built", count, skipped)
    assert len(records) == count
    first = records[0]["conversations"]
    assert (first[0]["value"], first[1]["value"]) == (question, answer)
    assert {record["source"] for record in records} == {SETS[name].name}
    assert len({record["id"] for record in records}) == count
    # Images are found from the root, and the whole checks clean.
    report = check_source(open_source(out, root))
    assert report.findings == []
    assert report.images + report.text_only == count
    assert report.text_only == (1 if name == "scienceqa" else 0)
    assert f"{count - SETS[name].count:+,} against" in built.remark


def test_all_sets_and_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    root = make_root(tmp_path / "raw", *(name for name in SETS if name not in {"dvqa", "tabmwp"}))
    out = tmp_path / "smr.jsonl"
    monkeypatch.setenv("COLUMNS", "600")
    (root / "TQA").mkdir()
    (root / "tqa" / "train").rename(root / "TQA" / "train")
    arguments = ["data", "build-smr", "--root", root, "--out", out, "--folder", "textbookqa=TQA"]
    monkeypatch.setattr(sys, "argv", ["slime", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    states = {row["set"]: row["state"] for row in json.loads((tmp_path / "smr.jsonl.report.json").read_text())}
    assert {name for name, state in states.items() if state == "absent"} == {"dvqa", "tabmwp"}
    assert {name for name, state in states.items() if state == "left out"} == {"mathvision"}
    assert "MATH-Vision has no training split" in said
    assert "dvqa_train_200k.jsonl or train_qa.json" in said
    assert "MATH-Vision" not in {record["source"] for record in read(out)}
    assert any(record.get("image", "").startswith("TQA/train/") for record in read(out))
    with pytest.raises(ConfigError, match="exists already"):
        build_smr(root, out)


def test_public_conversation_files(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "ai2d"
    (folder / "abc_images").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "abc_images" / "0.png").write_bytes(make_image("red"))
    rows = [
        {"id": 7, "image": "ai2d/abc_images/0.png", "conversations": turns("<image>?", "A", "?", "B")},
        {"id": 7, "image": "ai2d/abc_images/1.png", "conversations": turns("<image>?", "A")},
        {"id": 7},
    ]
    write_lines(folder / "ai2d_train_12k.jsonl", rows)
    (built,) = build_smr(tmp_path / "raw", tmp_path / "smr.jsonl", only=["ai2d"])
    assert dict(built.skipped) == {"the image is missing": 1, "no conversation": 1}
    (record,) = read(tmp_path / "smr.jsonl")
    assert (record["id"], record["image"], len(record["conversations"])) == ("ai2d-0", "ai2d/abc_images/0.png", 4)


def test_missing_sets_and_another_release(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"none of the sets is in .*arxivqa\.jsonl, images"):
        build_smr(tmp_path / "raw", tmp_path / "smr.jsonl")
    make_root(tmp_path / "raw", "chartqa")
    (tmp_path / "raw" / "ChartQA" / "train" / "train_human.json").write_text('[{"image": "a.png"}]')
    with pytest.raises(DataError, match=r"ChartQA in .* is not laid out as expected \(KeyError: 'imgname'"):
        build_smr(tmp_path / "raw", tmp_path / "smr.jsonl")
    assert not (tmp_path / "smr.jsonl").exists()
    with pytest.raises(ConfigError, match="'chart' is not a set of SMR, expected one of arxivqa"):
        build_smr(tmp_path / "raw", tmp_path / "smr.jsonl", only=["chart"])
    for elsewhere in ("../chartqa", str(tmp_path / "chartqa")):
        with pytest.raises(ConfigError, match=r"is not below .*, where image paths start"):
            build_smr(tmp_path / "raw", tmp_path / "smr.jsonl", folders={"chartqa": elsewhere})


class Malicious:
    """Run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('it ran')",))


def test_pickles_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "train.pk"
    path.write_bytes(pickle.dumps([Malicious()]))
    with pytest.raises(DataError, match=r"builtins\.exec, which is not plain data"):
        read_pickle(path)
    path.write_bytes(pickle.dumps([{"id": 1}])[:-4])
    with pytest.raises(DataError, match="cannot be read as a pickle"):
        read_pickle(path)
