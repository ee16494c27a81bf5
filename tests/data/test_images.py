"""An image is named by a path, stored in the record, or a member of an archive. It is never downloaded."""

from __future__ import annotations

import base64
import zipfile
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.data import archives
from slime_vlm.data.images import MissingImageError, open_stored_image
from slime_vlm.errors import DataError
from tests.data.writing import make_image, write_tar

PNG = make_image("red")
TEXT = base64.b64encode(PNG).decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").write_bytes(PNG)
    (folder / "cut.png").write_bytes(PNG[:60])
    write_tar(folder / "b.tar", {"./in/a.png": PNG})
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        archive.writestr("in/a.png", PNG)
    (folder / "bad.zip").write_bytes(b"PK" + bytes(50))
    return folder


@pytest.mark.parametrize(
    "value",
    [
        "sub/a.png",
        "sub/../sub/a.png",
        "b.tar/in/a.png",
        "c.zip/in/a.png",
        PNG,
        TEXT,
        f"data:image/png;base64,{TEXT}",
        {"bytes": PNG, "path": "elsewhere.png"},
        {"bytes": None, "path": "sub/a.png"},
    ],
    ids=lambda value: str(value)[:20],
)
def test_ways_to_name_an_image(root: Path, value: Any) -> None:
    assert open_stored_image(value, root).size == (40, 30)


def test_root_may_be_an_archive(root: Path) -> None:
    assert open_stored_image("in/a.png", root / "c.zip").size == (40, 30)
    assert open_stored_image("in/a.png", root / "b.tar").size == (40, 30)


@pytest.mark.parametrize("value", ["none.png", "x" * 300 + ".png", "\0.png", "b.tar/none.png", "c.zip/none.png", "sub"])
def test_missing_images(root: Path, value: str) -> None:
    with pytest.raises(MissingImageError):
        open_stored_image(value, root)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://example.org/a.png", "is the address"),
        ("../secret.png", "leads out of"),
        ("/etc/secret.png", "leads out of"),
        (7, "expected a path, bytes or base64 text"),
        ("", "expected a path"),
        ({"bytes": None, "path": None}, "expected a path"),
        ("cut.png", "damaged or incomplete"),
        (PNG[:60], "the image in the record: the image is damaged"),
        (b"", "it is empty"),
        (b"no image at all", "not an image"),
        ("bad.zip/a.png", "cannot be read"),
        (TEXT[:-30], "damaged"),
    ],
    ids=str,
)
def test_unusable_images(root: Path, value: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        open_stored_image(value, root)
    assert not isinstance(caught.value, MissingImageError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_zip_member(tmp_path: Path, method: int) -> None:
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.bmp", bytes(range(256)) * 40)
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(byte ^ 0x5A for byte in content[60:80])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"z\.zip: 'a\.bmp' cannot be read"):
        open_stored_image("z.zip/a.bmp", tmp_path)


def test_each_tar_is_scanned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [write_tar(tmp_path / f"{number}.tar", {"a.png": PNG}) for number in range(20)]
    scanned: list[Path] = []
    real = archives.tar_members
    monkeypatch.setattr(archives, "tar_members", lambda path: scanned.append(path) or real(path))
    for _ in range(2):
        for shard in shards:
            assert open_stored_image(f"{shard.name}/a.png", tmp_path).size == (40, 30)
    assert scanned == shards


def test_windows_separators_get_a_hint(root: Path) -> None:
    with pytest.raises(MissingImageError, match=r"write / between folders, not \\$"):
        open_stored_image("sub\\a.png", root)
    with pytest.raises(MissingImageError, match=r"no such file$"):
        open_stored_image("sub/b.png", root)


def test_base64_text_beyond_ascii_is_one_line(root: Path) -> None:
    with pytest.raises(DataError, match="the base64 text of the image is damaged"):
        open_stored_image("data:image/png;base64,\u00e9", root)
