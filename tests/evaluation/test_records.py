"""Find records and open their images. Whatever is wrong with them is one line."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from slime_vlm.errors import DataError, MediaError
from slime_vlm.evaluation import records as records_module
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Task, find_tasks
from slime_vlm.evaluation.images import open_benchmark_image
from slime_vlm.evaluation.records import hub_id, load_records
from tests.evaluation.make_fixtures import FIXTURES, make_image

POPE = Task(BENCHMARKS["pope"], "test")


def test_limit_and_length() -> None:
    found = load_records(POPE, FIXTURES, limit=2)
    assert (found.length, len(list(found.rows))) == (2, 2)
    assert load_records(POPE, FIXTURES).length == 6
    # The length of a table is not known before it is read.
    assert load_records(find_tasks("mmbench")[0], FIXTURES).length is None


def test_one_file_for_a_task(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (FIXTURES / "pope" / "test.jsonl").read_text().splitlines()]
    (tmp_path / "pope.json").write_text(json.dumps({"info": "made up", "data": rows}))
    shutil.copytree(FIXTURES / "pope" / "images", tmp_path / "images")
    found = load_records(POPE, tmp_path)
    assert [row["question_id"] for row in found.rows] == [row["question_id"] for row in rows]
    assert open_benchmark_image(rows[0]["image"], found.folder).size == (64, 48)


def test_splits_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "docvqa"
    folder.mkdir()
    text = (FIXTURES / "docvqa" / "validation.jsonl").read_text()
    (folder / "validation.jsonl").write_text(text)
    (folder / "test-00000-of-00002.jsonl").write_text(text.splitlines()[0])
    (folder / "test-00001-of-00002.jsonl").write_text(text.splitlines()[1])
    by_name = {task.name: load_records(task, tmp_path) for task in find_tasks("docvqa,docvqa:test")}
    assert [len(list(found.rows)) for found in by_name.values()] == [3, 2]
    with pytest.raises(DataError, match="none for the split val; rename one to val"):
        load_records(Task(BENCHMARKS["docvqa"], "val"), tmp_path)
    # A single file of another split is not taken for the requested one.
    for path in folder.glob("test-*"):
        path.unlink()
    with pytest.raises(DataError, match=r"has validation\.jsonl but none for the split test"):
        load_records(find_tasks("docvqa:test")[0], tmp_path)
    (folder / "validation.jsonl").rename(folder / "mine.jsonl")
    assert load_records(find_tasks("docvqa:test")[0], tmp_path).length == 3


def test_missing_data_names_the_hub_id_and_the_local_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, config: str | None, split: str, limit: int | None) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(records_module, "_load", offline)
    with pytest.raises(DataError) as caught:
        load_records(find_tasks("infovqa")[0], tmp_path)
    message = str(caught.value)
    assert "lmms-lab-encoder/DocVQA --config InfographicVQA split validation" in message
    assert f"{tmp_path}/infovqa/validation.parquet" in message
    assert "\n" not in message
    with pytest.raises(DataError, match="the data set is lmms-lab/POPE"):
        load_records(POPE, tmp_path, organisation="lmms-lab")
    assert hub_id(BENCHMARKS["ocrbench"], "lmms-lab") == "echo840/OCRBench"
    with pytest.raises(DataError, match="the data set is me/pope-copy --config default split test"):
        load_records(find_tasks("pope", {"pope": "me/pope-copy"})[0], tmp_path, organisation="lmms-lab")


def test_wrong_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_records(POPE, tmp_path / "nowhere")
    (tmp_path / "pope.jsonl").write_text('{"question": "Is it?", "label": "yes"}\n')
    with pytest.raises(
        DataError, match=r"record 0 of pope.jsonl .* has no question_id, answer, image, category, it has"
    ):
        list(load_records(POPE, tmp_path).rows)


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        ("jsonl", b"{broken\n", "cannot be read"),
        ("jsonl", b"", "pope.jsonl .0 bytes. holds no records"),
        ("jsonl", b"5\n", "holds 5, expected records"),
        ("json", b'[{"question": ', "cannot be read"),
        ("json", b"[]", "holds no records"),
        ("json", b"[1]", "holds 1, expected records"),
        ("json", b'{"a": 1}', "expected a list of records"),
        ("parquet", b"", "cannot be read"),
        ("parquet", b"PAR1 cut off", "cannot be read"),
        ("tsv", b"question\n\xff\n", "cannot be read"),
        ("tsv", b"question\tanswer\n", "holds no records"),
    ],
)
def test_damaged_files_are_named(ending: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / f"pope.{ending}").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(load_records(POPE, tmp_path).rows)
    assert f"pope.{ending}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_in_every_form(tmp_path: Path) -> None:
    content = make_image(2)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(content)
    text = base64.b64encode(content).decode()
    # Too long for the name of a file, and not too long for a path.
    icon = io.BytesIO()
    Image.new("RGB", (96, 96), "red").save(icon, "PNG")
    assert 255 < len(base64.b64encode(icon.getvalue())) < 1024
    assert open_benchmark_image(base64.b64encode(icon.getvalue()).decode(), tmp_path).size == (96, 96)
    forms = [
        "images/a.png",
        "a.png",
        content,
        text,
        f"data:image/png;base64,{text}",
        {"bytes": content, "path": None},
        {"bytes": None, "path": "a.png"},
        Image.open(io.BytesIO(content)),
    ]
    opened = [open_benchmark_image(form, tmp_path) for form in forms]
    assert {(image.mode, image.size) for image in opened} == {("RGB", (300, 200))}
    assert len({image.tobytes() for image in opened}) == 1


@pytest.mark.parametrize("value", ["no/such.png", "bm90IGEgcGljdHVyZQ==", b"text", {"name": "a"}, 5, ""])
def test_no_image(value: object, tmp_path: Path) -> None:
    with pytest.raises(MediaError):
        open_benchmark_image(value, tmp_path)


def test_the_hub_s_own_library_reads_the_fixtures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    files = {"test": str(FIXTURES / "mme" / "data" / "test-00000-of-00001.parquet")}
    real = datasets.load_dataset

    def local(name: str, config: str | None, split: str, streaming: bool) -> object:
        assert (name, config) == ("lmms-lab-encoder/MME", None)
        table = real("parquet", data_files=files, split=split, streaming=streaming, cache_dir=str(tmp_path))
        return table.cast_column("image", datasets.Image())

    monkeypatch.setattr(datasets, "load_dataset", local)
    for limit in (None, 3):
        found = load_records(find_tasks("mme")[0], None, limit=limit)
        rows = list(found.rows)
        assert len(rows) == found.length == (limit or 6)
        # Not decoded by the library: our own rules open them.
        assert isinstance(rows[0]["image"]["bytes"], bytes)
