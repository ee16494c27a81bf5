"""A run continues with the data that it began with, or with others by --accept-data (training/data_changes.py)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from slime_vlm.cli import main
from slime_vlm.data import RecordDataset, open_source
from slime_vlm.errors import DataError
from slime_vlm.training.data_changes import DATA_FILE, compare_data
from slime_vlm.training.run import train
from tests.training.mini import records_recipe, write_recipe


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `data`, a recipe and a run that was stopped after its second of three steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("begun")
    recipe = records_recipe(folder / "data", steps=3, batch_size=2, save_minutes=0.0)
    train(write_recipe(folder, recipe), folder / "run")
    shutil.rmtree(folder / "run" / "3" / "model")
    return folder


@pytest.fixture
def again(begun: Path, tmp_path: Path) -> Iterator[Path]:
    """The same for one test: the data in their place, a copy of the run."""
    shutil.copytree(begun / "run", tmp_path / "run")
    shutil.copytree(begun / "data", tmp_path / "data")
    yield tmp_path / "run"
    shutil.rmtree(begun / "data")
    shutil.copytree(tmp_path / "data", begun / "data")


def text(data: Path) -> None:
    path = data / "records.json"
    path.write_text(path.read_text().replace("Two?", "Tow?"))


def order(data: Path) -> None:
    records = json.loads((data / "records.json").read_text())
    (data / "records.json").write_text(json.dumps(records[::-1]))


def image(data: Path) -> None:
    Image.new("RGB", (70, 60), "green").save(data / "a.png")


def number(data: Path) -> None:
    records = json.loads((data / "records.json").read_text())
    (data / "records.json").write_text(json.dumps(records[:2]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (text, "records.json has records with another content"),
        (order, "records.json has its records in another order"),
        (image, "records.json has images with another content: a.png"),
        (number, "records.json has 2 records and had 3"),
    ],
)
def test_changed_data_are_refused_and_accepted(
    change: Callable[[Path], None], expected: str, begun: Path, again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, bad = begun / "mini.yaml", again / "3" / "bad_records_0.jsonl"
    bad.write_text('{"index": 2, "source": "records.json", "place": 2, "reason": "none"}\n')
    change(begun / "data")
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            train(recipe, again, resume=True)
        assert str(caught.value).startswith("stage '3': the data changed since the stage began: ")
        assert expected in str(caught.value)
        assert "--accept-data" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert bad.exists()
    capsys.readouterr()
    train(recipe, again, resume=True, accept_data=True)
    said = capsys.readouterr().err
    assert said.count(f"{expected}; continuing with them\n") == 1
    assert "stage 3: resuming after step 2 of 3" in said
    assert not bad.exists()
    assert (again / "3" / "former_bad_records_0.jsonl").exists()
    # From now on these are its data.
    shutil.rmtree(again / "3" / "model")
    if change is number:
        # The option is needed until a checkpoint of the new order is written, and there was none here.
        with pytest.raises(DataError, match=r"records.json has 2 records and had 3"):
            train(recipe, again, resume=True)
    else:
        train(recipe, again, resume=True)


def test_the_same_data_are_not_mentioned(begun: Path, again: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads((again / "3" / DATA_FILE).read_text())
    assert found["records"] == 3
    assert found["sampled"].keys() == {"a.png", "b.png"}
    train(begun / "mini.yaml", again, resume=True)
    assert "changed" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[{", "[{}]", "3", "[1]"])
def test_damaged_fingerprints(text: str, begun: Path, tmp_path: Path) -> None:
    (tmp_path / DATA_FILE).write_text(text)
    dataset = RecordDataset(open_source(begun / "data" / "records.json"))
    assert compare_data(tmp_path, dataset, resumed=True, accept=False) == [
        f"{tmp_path / DATA_FILE} is damaged, so nothing can be compared"
    ]
    assert (tmp_path / DATA_FILE).read_text() == text
    assert compare_data(tmp_path, dataset, resumed=True, accept=True)
    assert compare_data(tmp_path, dataset, resumed=True, accept=False) == []


def test_a_run_of_an_earlier_version(begun: Path, again: Path) -> None:
    (again / "3" / DATA_FILE).unlink()
    number(begun / "data")
    # Its checkpoints know the number of records.
    with pytest.raises(DataError, match=r"records.json has 2 records and had 3\. .*--accept-data"):
        train(begun / "mini.yaml", again, resume=True)


def test_the_option_is_for_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["slime", "train", str(tmp_path / "none.yaml"), "--accept-data"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "--accept-data is only for --resume" in capsys.readouterr().err
