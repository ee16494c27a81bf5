"""Members of archives: what is read, and hostile or damaged archives (data/archives.py)."""

from __future__ import annotations

import io
import resource
import tarfile
import zipfile
from pathlib import Path

import pytest

from slime_vlm.data import archives
from slime_vlm.data.archives import read_member, tar_members
from slime_vlm.errors import DataError


def test_members_of_zip_and_tar(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("b/c.txt", b"content")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("./b/c.txt")
        info.size = 7
        tar.addfile(info, io.BytesIO(b"content"))
    for name in ("a.zip", "a.tar"):
        assert read_member(tmp_path / name, "b/c.txt") == b"content"
        assert read_member(tmp_path / name, "b/d.txt") is None


def test_a_member_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("a", "w") as member:
        for _ in range(270):
            member.write(bytes(1_000_000))
    assert path.stat().st_size < 400_000
    with pytest.raises(DataError, match=r"'a' unpacks to 270,000,000 bytes, expected at most 256,000,000"):
        read_member(path, "a")


def test_a_member_whose_size_is_a_lie(tmp_path: Path) -> None:
    path = tmp_path / "lie.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("a", "w") as member:
        for _ in range(600):
            member.write(bytes(1_000_000))
    content = path.read_bytes()
    path.write_bytes(content.replace((600_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The checksum is that of all of it.
    with pytest.raises(DataError, match="cannot be read"):
        read_member(path, "a")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("\u00e9.txt", b"content")
    assert read_member(path, "\u00e9.txt") == b"content"
    path = tmp_path / "b.zip"
    path.write_bytes((tmp_path / "a.zip").read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(DataError, match=r"b\.zip: 'c\.txt' cannot be read .*utf-8"):
        read_member(path, "c.txt")


def test_large_members_of_a_tar_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a")
        info.size = 1000
        tar.addfile(info, io.BytesIO(bytes(1000)))
    monkeypatch.setattr(archives, "MAX_MEMBER", 999)
    with pytest.raises(DataError, match="a member has 1,000 bytes, expected at most 999"):
        read_member(tmp_path / "a.tar", "a")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"GNU.sparse.map": "0,x", "GNU.sparse.size": "9"}, "cannot be read as a tar file"),
        ({"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}, "is stored with holes"),
    ],
    ids=["damaged holes", "holes"],
)
def test_extended_headers_of_a_tar_file(tmp_path: Path, headers: dict[str, str], message: str) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.size = 1
        info.pax_headers = headers
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(DataError, match=message):
        tar_members(path)
