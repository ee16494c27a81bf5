"""Every kind of source gives the same records; broken ones say what is wrong in one line."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import pytest

from slime_vlm.data import RecordDataset, open_source
from slime_vlm.data.sources.json_records import JsonRecords
from slime_vlm.data.sources.parquet import GROUPS_AT_HAND, ParquetRecords
from slime_vlm.errors import DataError
from tests.data.writing import make_image, make_records, turns, write_lines, write_tar


def test_json_and_jsonl_give_the_same_records(tmp_path: Path) -> None:
    records = [*make_records(tmp_path, 6), {"id": "é", "conversations": turns("Größe, 大小?", "]}{[")}]
    lines = open_source(write_lines(tmp_path / "a.jsonl", records))
    for name, text in {
        "indented.json": json.dumps(records, indent=2, ensure_ascii=False),
        "one_line.json": f" \n{json.dumps(records)}\n",
        "windows.json": f"\ufeff{json.dumps(records)}",
        "windows.jsonl": "\ufeff" + "".join(f"{json.dumps(record)}\r\n" for record in records),
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        listed = open_source(tmp_path / name)
        assert len(listed) == len(lines) == 7
        assert [listed[i].as_dict() for i in range(7)] == [lines[i].as_dict() for i in range(7)] == records


def test_byte_spans_of_records(tmp_path: Path) -> None:
    # Three bytes of "é": quote, two of the letter.
    (tmp_path / "a.json").write_text('["é", 1]', encoding="utf-8")
    assert JsonRecords(tmp_path / "a.json").spans.tolist() == [[1, 5], [7, 8]]
    (tmp_path / "b.jsonl").write_text("1\n\n  \n22", encoding="utf-8")
    assert JsonRecords(tmp_path / "b.jsonl").spans.tolist() == [[0, 2], [6, 8]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[{]", "is not JSON"),
        ("[1, 2", "is not JSON"),
        ("[1] 2", "is not JSON"),
        ("[]", "no record"),
        ("", "no record"),
    ],
)
def test_files_without_records(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=expected) as caught:
        open_source(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": ', "record 1: this line is not JSON"),
        ("[]", r"record 1: \[\] is not a record"),
        ('{"id": "x"}', "record 'x': the record has no 'conversations'"),
        ('{"conversations": "hello"}', "record 1: the record has no 'conversations'"),
        ('{"conversations": []}', "record 1: the record has no 'conversations'"),
        ('{"id": [1], "conversations": [{}]}', r"record 1: 'id' is \[1\]"),
        ('{"conversations": [{"from": "human", "value": "a\\ud83d"}]}', r"record 1: turn 0 holds '\\ud83d', half of"),
    ],
)
def test_a_broken_line_costs_one_record(tmp_path: Path, line: str, expected: str) -> None:
    good = json.dumps({"id": "good", "conversations": turns("?", "!")})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    source = open_source(tmp_path / "a.jsonl")
    assert len(source) == 3
    assert source[2].id == "good"
    with pytest.raises(DataError, match=expected):
        source[1]


def test_messages_and_several_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(make_image("red"))
    messages = [{"role": "user", "content": "<image><image>Same?"}, {"role": "assistant", "content": "Yes."}]
    source = open_source(write_lines(tmp_path / "a.jsonl", [{"images": ["a.png", "b.png"], "messages": messages}]))
    taken = RecordDataset(source)[0]
    assert [image.size for image in taken["images"]] == [(40, 30), (40, 30)]
    published = turns("<image><image>Same?", "Yes.")
    assert taken["conversations"] == published
    assert source[0].as_dict() == {"image": ["a.png", "b.png"], "conversations": published}


def test_tar_shards_and_a_folder(tmp_path: Path) -> None:
    samples = {
        "0.png": make_image("red"),
        "0.json": json.dumps({"id": "first", "conversations": turns("<image>?", "red")}).encode(),
        "sub/1.jpg": make_image("blue", 50),
        "sub/1.txt": b"a blue wall\n",
        "2.0.png": make_image("red"),
        "2.1.png": make_image("blue"),
        "2.json": json.dumps({"conversations": turns("<image><image>?", "two")}).encode(),
        # What macOS puts into archives beside each file.
        "._0.png": b"no image",
        "sub/._1.txt": b"no text",
    }
    names = list(samples)
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "0.tar", {name: samples[name] for name in names[:4]})
    write_tar(tmp_path / "shards" / "1.tar", {name: samples[name] for name in names[4:]})
    for name, content in samples.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name in ("shards", "shards/*.tar", "folder"):
        source = open_source(tmp_path / name)
        # Files without such partners are no samples.
        dataset = RecordDataset(pickle.loads(pickle.dumps(source)))
        found = sorted((len(record["images"]), record["conversations"][1]["value"]) for record in dataset)
        assert found == [(1, "a blue wall"), (1, "red"), (2, "two")]
        captioned = next(record for record in dataset if record["conversations"][1]["value"] == "a blue wall")
        assert captioned["conversations"][0]["value"] == "<image>"
        assert captioned["images"][0].size == (40, 50)


def test_broken_shards(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match="cannot be read as a tar file"):
        open_source(tmp_path / "a.tar")
    whole = write_tar(tmp_path / "b.tar", {"0.txt": b"caption", "0.png": make_image("red") + bytes(2000)})
    content = whole.read_bytes()
    whole.write_bytes(content[: content.index(b"\x89PNG") + 40])
    with pytest.raises(DataError, match=r"unexpected end of data|broken off"):
        RecordDataset(open_source(whole))[0]
    write_tar(tmp_path / "c.tar", {"0.png": make_image("red")})
    with pytest.raises(DataError, match="has no record"):
        open_source(tmp_path / "c.tar")


def test_parquet_shards(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    records = make_records(tmp_path, 10)
    rows = [
        {
            "id": record["id"],
            "image": {"bytes": (tmp_path / record["image"]).read_bytes(), "path": None} if "image" in record else None,
            "conversations": record["conversations"],
            "other": 1,
        }
        for record in records
    ]
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, part in enumerate((rows[:6], rows[6:])):
        parquet.write_table(arrow.Table.from_pylist(part), shards / f"{number}.parquet", row_group_size=2)
    source = open_source(shards)
    assert len(source) == 10
    assert list(source.blocks or []) == [2, 2, 2, 2, 2]
    dataset = RecordDataset(pickle.loads(pickle.dumps(source)))
    assert [record["id"] for record in dataset] == [f"r{i}" for i in range(10)]
    assert [len(record["images"]) for record in dataset] == [1, 1, 1, 1, 0] * 2
    assert dataset[7]["images"][0].size == (40, 37)
    (unpickled,) = dataset.sources
    assert isinstance(unpickled, ParquetRecords)
    assert len(unpickled._at_hand) == GROUPS_AT_HAND < len(unpickled.groups)
    assert dataset[0]["conversations"] == records[0]["conversations"]
    parquet.write_table(arrow.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"has no column 'conversations', .* or 'instruction': it has text"):
        open_source(tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        open_source(tmp_path / "broken.parquet")


def test_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    records = make_records(tmp_path, 4)
    rows = [{**record, "image": str(tmp_path / record["image"])} for record in records]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made, "val": made.select([0])}).save_to_disk(tmp_path / "dict")
    for name, split, count in (("one", None, 4), ("dict", None, 4), ("dict", "val", 1)):
        dataset = RecordDataset(open_source(tmp_path / name, images="/", split=split))
        assert [record["id"] for record in dataset] == [f"r{i}" for i in range(count)]
        assert dataset[0]["images"][0].size == (40, 30)
    picture = {"type": "image", "image": str(tmp_path / "0.png"), "text": None}
    asked = [{"role": "user", "content": [picture, {"type": "text", "image": None, "text": "Which?"}]}]
    answered = {"role": "assistant", "content": [{"type": "text", "image": None, "text": "red"}]}
    block = {"type": datasets.Value("string"), "image": datasets.Image(), "text": datasets.Value("string")}
    features = {"messages": [{"role": datasets.Value("string"), "content": [block]}]}
    rows = [{"messages": [*asked, answered]}]
    datasets.Dataset.from_list(rows, datasets.Features(features)).save_to_disk(tmp_path / "blocks")
    record = RecordDataset(open_source(tmp_path / "blocks", images="/"))[0]
    assert (record["conversations"], record["images"][0].size) == (turns("<image>Which?", "red"), (40, 30))
    with pytest.raises(DataError, match="the data set cannot be loaded"):
        open_source(tmp_path / "dict", split="tset")


@pytest.mark.parametrize("key", ["video", "videos", "audio", "audios"])
def test_tables_with_other_media_are_refused(key: str, tmp_path: Path) -> None:
    """Read without that column, the records would be learnt as text alone."""
    arrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    rows = [{"conversations": turns("Which?", "red"), key: value} for value in (["a.mp4"], [], None)]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    for name in ("a.parquet", "saved"):
        source = open_source(tmp_path / name)
        with pytest.raises(DataError, match=f"record 0: the record has '{key}', expected images and text"):
            source[0]
        assert source[1].conversations == source[2].conversations == turns("Which?", "red")
        assert len(list(source.texts())) == 3


def test_sources_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no records at .*none.jsonl: expected a JSON or JSONL file"):
        open_source(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no image folder at"):
        open_source(write_lines(tmp_path / "a.jsonl", [1]), images=tmp_path / "none")
    write_lines(tmp_path / "b.jsonl", [1])
    with pytest.raises(DataError, match="matches 2 files: name JSON and JSONL files one by one"):
        open_source(tmp_path / "*.jsonl")
    (tmp_path / "a.tar").touch()
    with pytest.raises(DataError, match="files of several kinds"):
        open_source(tmp_path / "a.*")


@pytest.mark.parametrize("depth", [3_000, 200_000])
def test_nesting_too_deep_is_one_line(depth: int, tmp_path: Path) -> None:
    nested = '{"conversations": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "a.jsonl").write_text(f"{nested}\n")
    source = open_source(tmp_path / "a.jsonl")
    # Python 3.13 reads deeper than 3.11. The record is then refused for its form.
    with pytest.raises(DataError, match=r"this line is not JSON|has no 'conversations'"):
        source[0]
    (tmp_path / "b.json").write_text(f"[{nested}]")
    with pytest.raises(DataError, match=r"is not JSON|has no 'conversations'"):
        open_source(tmp_path / "b.json")[0]


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_positions_do_not_depend_on_how_much_is_read_at_a_time(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("slime_vlm.data.sources.json_records._CHUNK", chunk)
    records = [{"id": 'ä€𝄞\\"[', "n": 12}, {"id": ""}, 123, [1, [2]], "x\r", None]
    for text in (json.dumps(records, ensure_ascii=False, indent=3), "\ufeff \r\n" + json.dumps(records) + " \n"):
        (tmp_path / "a.json").write_text(text, encoding="utf-8", newline="")
        source = JsonRecords(tmp_path / "a.json")
        assert [source.read(index) for index in range(len(source))] == records
    lines = "\r\n\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8", newline="")
    source = JsonRecords(tmp_path / "a.jsonl")
    assert [source.read(index) for index in range(len(source))] == records
    for text in ("[1, 2", "[1 2]", "[1], 2", "[1,,2]", '["a]', "[1]]"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match="is not JSON"):
            JsonRecords(tmp_path / "a.json")


def test_one_very_long_line_is_not_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("slime_vlm.data.sources.json_records._CHUNK", 10_000)
    monkeypatch.setattr("slime_vlm.data.sources.json_records.MAX_RECORD", 100_000)
    record = {"id": "x" * 1000}
    (tmp_path / "a.json").write_text(json.dumps([record] * 3000))
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n" + " " * 3_000_000 + json.dumps("y" * 200_000) + "\n")
    for name, count in (("a.json", 3000), ("a.jsonl", 2)):
        tracemalloc.start()
        source = JsonRecords(tmp_path / name)
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Of 3 MB; the positions of 3,000 records take 0.6 MB before they are an array.
        assert peak < 1_200_000
        assert len(source) == count
        assert source.read(0) == record
    with pytest.raises(DataError, match=r"this record has 3,200,003 bytes, expected at most 100,000"):
        source.read(1)
