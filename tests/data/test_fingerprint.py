"""Fingerprints of sources tell what changed (data/fingerprint.py)."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.data import open_source
from slime_vlm.data.fingerprint import SAMPLED, changes_between, fingerprint
from slime_vlm.data.images import stored_image_digest, stored_image_file
from slime_vlm.errors import DataError
from tests.data.writing import make_image, make_records, turns, write_lines, write_tar


def changes(folder: Path, name: str, change: Callable[[], Any]) -> list[str]:
    """What a change of a source does to its fingerprint; the source is opened anew, as by another process."""
    before = json.loads(json.dumps([fingerprint(open_source(folder / name))]))
    change()
    after = [fingerprint(open_source(folder / name))]
    assert changes_between(after, after) == []
    return [line.replace(str(folder), "") for line in changes_between(before, after)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "a.jsonl", make_records(tmp_path, 7))
    return tmp_path


def rewrite(folder: Path, change: Callable[[list[Any]], Any]) -> Callable[[], None]:
    def apply() -> None:
        records = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
        change(records)
        write_lines(folder / "a.jsonl", records)

    return apply


def test_nothing_changed(folder: Path) -> None:
    assert changes(folder, "a.jsonl", lambda: os.utime(folder / "0.png", (1, 1))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda records: records[5]["conversations"][1].update(value="RED"),
            "/a.jsonl has records with another content",
        ),
        (lambda records: records.reverse(), "/a.jsonl has its records in another order"),
        (lambda records: records.append(records[0]), "/a.jsonl has 8 records and had 7"),
        (lambda records: records.pop(), "/a.jsonl has 6 records and had 7"),
        (lambda records: records[0].update(image="1.png"), "/a.jsonl has records with another content"),
    ],
)
def test_records_changed(folder: Path, change: Callable[[list[Any]], Any], expected: str) -> None:
    assert changes(folder, "a.jsonl", rewrite(folder, change)) == [expected]


def test_images_changed(folder: Path) -> None:
    content = bytearray((folder / "3.png").read_bytes())
    content[-20] ^= 1
    found = changes(folder, "a.jsonl", lambda: (folder / "3.png").write_bytes(content))
    assert found == ["/a.jsonl has images with another content: 3.png"]

    def two() -> None:
        (folder / "0.png").unlink()
        (folder / "1.png").write_bytes(make_image("white"))

    found = changes(folder, "a.jsonl", two)
    assert found == ["/a.jsonl has images with another content: 0.png and 1 more of a sample"]


def test_an_image_outside_of_the_sample_by_size(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(make_image("red"))
    (tmp_path / "b.png").write_bytes(make_image("red"))
    records = [{"id": i, "image": "a.png", "conversations": turns("?", "!")} for i in range(2 * SAMPLED)]
    # Every second record is in the sample, from the first on; this one is not.
    records[1]["image"] = "b.png"
    write_lines(tmp_path / "a.jsonl", records)
    found = changes(tmp_path, "a.jsonl", lambda: (tmp_path / "b.png").write_bytes(make_image("red", 99)))
    assert found == ["/a.jsonl has image files of another size"]


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    lines = ["{", "[1]", '{"image": "\\u0000", "conversations": []}', '{"image": 3, "messages": 1}', '"é"']
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = changes(tmp_path, "a.jsonl", lambda: (tmp_path / "a.jsonl").write_text("\n".join(["}", *lines[1:]])))
    assert found == ["/a.jsonl has records with another content"]


def test_chat_messages_and_images_in_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(make_image("red"))
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Colour?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "red"}]
    write_lines(tmp_path / "a.jsonl", [{"messages": messages}])
    found = changes(tmp_path, "a.jsonl", lambda: (tmp_path / "a.png").write_bytes(make_image("blue")))
    assert found == ["/a.jsonl has images with another content: a.png"]


def test_samples_of_tars_and_folders(tmp_path: Path) -> None:
    red, blue = make_image("red"), make_image("blue")

    def write(image: bytes, text: bytes) -> None:
        files = {"x.png": image, "x.txt": text, "y.png": red, "y.txt": b"red"}
        write_tar(tmp_path / "0.tar", files)
        (tmp_path / "loose").mkdir(exist_ok=True)
        for name, content in files.items():
            (tmp_path / "loose" / name).write_bytes(content)

    write(red, b"red")
    assert changes(tmp_path, "loose", lambda: write(red, b"RED")) == ["/loose has records with another content"]
    assert changes(tmp_path, "loose", lambda: write(blue, b"RED")) == ["/loose has images with another content: x.png"]
    assert changes(tmp_path, "0.tar", lambda: write(blue, b"red")) == ["/0.tar has records with another content"]


def test_tables(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(text: str, colour: str = "red", reverse: bool = False) -> None:
        rows = [
            {"id": i, "image": {"bytes": make_image(colour), "path": None}, "conversations": turns("?", f"{text}{i}")}
            for i in range(6)
        ]
        parquet.write_table(
            arrow.Table.from_pylist(rows[::-1] if reverse else rows), tmp_path / "a.parquet", row_group_size=2
        )

    write("a")
    assert changes(tmp_path, "a.parquet", lambda: write("a", reverse=True)) == [
        "/a.parquet has its records in another order"
    ]
    assert changes(tmp_path, "a.parquet", lambda: write("b")) == ["/a.parquet has records with another content"]
    (found,) = changes(tmp_path, "a.parquet", lambda: write("b", "blue"))
    assert found == "/a.parquet has images with another content: image 0 of record 0 and 5 more of a sample"
    # Bytes of images are not read to compare the text of rows.
    assert all(b"bytes" not in text for text in open_source(tmp_path / "a.parquet").texts())


def test_rows_of_the_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def write(text: str, colour: str) -> None:
        rows = [
            {"id": f"{i}", "image": {"bytes": make_image(colour), "path": None}, "conversations": turns("?", text)}
            for i in range(3)
        ]
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))

    write("a", "red")
    assert changes(tmp_path, "saved", lambda: write("b", "red")) == ["/saved has records with another content"]
    (found,) = changes(tmp_path, "saved", lambda: write("b", "blue"))
    assert found == "/saved has images with another content: image 0 of record 0 and 2 more of a sample"


def test_other_sources() -> None:
    one: dict[str, Any] = {
        "source": "a",
        "records": 1,
        "in_order": "",
        "any_order": "",
        "image_sizes": "",
        "sampled": {},
    }
    assert changes_between([one], [{**one, "source": "b"}]) == ["the sources are b and were a"]
    assert changes_between([one], [one, one]) == ["the sources are a, a and were a"]


def test_files_and_digests_of_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(make_image("red"))
    write_tar(tmp_path / "a.tar", {"b.png": b"content"})
    assert stored_image_file("a.png", tmp_path) == tmp_path / "a.png"
    assert stored_image_file("a.tar/b.png", tmp_path) == tmp_path / "a.tar"
    assert stored_image_file({"bytes": b"1", "path": "a.png"}, tmp_path) is None
    assert stored_image_digest("a.tar/b.png", tmp_path) == stored_image_digest(b"content", tmp_path)
    with pytest.raises(DataError, match="leads out of"):
        stored_image_file("../a.png", tmp_path)
    with pytest.raises(DataError, match="no such file"):
        stored_image_digest("b.png", tmp_path)
    # Both ends of a large file, and its size.
    large = io.BytesIO(bytes(1 << 18))
    (tmp_path / "large").write_bytes(large.getvalue())
    before = stored_image_digest("large", tmp_path)
    for position in (0, (1 << 18) - 1):
        large.getbuffer()[position] = 1
        (tmp_path / "large").write_bytes(large.getvalue())
        assert stored_image_digest("large", tmp_path) != before
        large.getbuffer()[position] = 0
    (tmp_path / "large").write_bytes(bytes((1 << 18) + 1))
    assert stored_image_digest("large", tmp_path) != before
