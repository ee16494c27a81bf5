"""Fetching packages from an archive of one package, which is made here."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.pages.debian_packages import fetch_packages, read_manifest

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages are Debian's")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where apt-get downloads the package `tiny`."""
    root = tmp_path / "tiny"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: tiny\nVersion: 1.2\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: tiny\n"
    )
    documents = root / "usr/share/doc/tiny"
    documents.mkdir(parents=True)
    (documents / "copyright").write_text("GPL")
    (documents / "other.txt").write_text("other")
    (documents / "manual.pdf.gz").write_bytes(gzip.compress(b"%PDF-1.4"))
    archive = tmp_path / "tiny_1.2_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(root), str(archive)], check=True, capture_output=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    apt = programs / "apt-get"
    apt.write_text(f'#!/bin/sh\n[ "$2" = tiny ] || {{ echo "E: no $2" >&2; exit 100; }}\ncp {archive} .\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("absolute", [False, True])
def test_a_cache_may_be_given_relative_to_where_one_is(here: Path, absolute: bool) -> None:
    cache = here / "cache" if absolute else Path("cache")
    (found,) = fetch_packages(["tiny"], cache, (".pdf",))
    assert (found.package, found.version) == ("tiny", "1.2")
    assert (here / "cache" / found.path).read_bytes() == b"%PDF-1.4"
    assert (here / "cache/tiny/copyright").read_text() == "GPL"
    assert read_manifest(cache) == [found]
    assert sorted(path.name for path in (here / "cache").iterdir()) == ["manifest.json", "tiny"]


def test_an_unknown_package_is_named(here: Path) -> None:
    with pytest.raises(ConfigError, match="apt-get download: E: no lacking; run apt-get update"):
        fetch_packages(["lacking"], Path("cache"), (".pdf",))
