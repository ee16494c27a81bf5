"""Fetches files out of Debian packages by name, with each package's copyright file, without installing anything."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slime_vlm.errors import ConfigError

MANIFEST = "manifest.json"
_TOGETHER = 25  # packages an apt-get call; each call reads its lists anew


@dataclass(frozen=True)
class ListedPackage:
    """One line of a package list.

    Attributes:
        name: Debian package.
        publisher: who made what is in it; everything of one publisher belongs to one split.
        split: "train" or "heldout".
        licence: short licence note. The package's own copyright file is what counts, and is kept.
        use: what it is good for, where a list says so.
    """

    name: str
    publisher: str
    split: str
    licence: str
    use: str = ""


@dataclass(frozen=True)
class KeptFile:
    """A file of a fetched package, as the manifest states it.

    Attributes:
        path: path relative to the cache folder.
        package: Debian package.
        version: version of the package.
    """

    path: str
    package: str
    version: str


def read_package_list(path: Path) -> list[ListedPackage]:
    """Read a tab-separated list of packages; lines that start with # are comments.

    Raises:
        ConfigError: A line without four or five fields, an unknown split, or a publisher in both splits.
    """
    packages: list[ListedPackage] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) not in (4, 5) or fields[2] not in ("train", "heldout"):
            raise ConfigError(
                f"{path.name}: line {number} is {line!r}, expected package, publisher, train or heldout, licence"
            )
        packages.append(ListedPackage(*fields))
    splits: dict[str, str] = {}
    for package in packages:
        if splits.setdefault(package.publisher, package.split) != package.split:
            raise ConfigError(f"{path.name}: publisher {package.publisher!r} is in both splits, expected one")
    return packages


def fetch_packages(names: Iterable[str], cache: Path, suffixes: Sequence[str]) -> list[KeptFile]:
    """Download packages and keep their files of some kinds, each package in a folder of its name.

    A package that is already in the cache is not fetched again. The copyright file lies beside the kept files, and
    `manifest.json` lists every file with its package and version.

    Args:
        names: Debian packages.
        cache: Folder that keeps the files.
        suffixes: File name endings to keep, for example (".pdf",). Files compressed by gzip are unpacked.

    Returns:
        Every file of the manifest, those of earlier calls included.

    Raises:
        ConfigError: apt-get or dpkg-deb is absent or fails.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise ConfigError(f"{program}: not found, expected a Debian system; run this on one and copy the folder")
    cache.mkdir(parents=True, exist_ok=True)
    kept = {file.path: file for file in read_manifest(cache)}
    present = {file.package for file in kept.values()}
    missing = [name for name in dict.fromkeys(names) if name not in present]
    for start in range(0, len(missing), _TOGETHER):
        for file in _fetch(missing[start : start + _TOGETHER], cache, suffixes):
            kept[file.path] = file
        _write_manifest(cache, list(kept.values()))
    return list(kept.values())


def read_manifest(cache: Path) -> list[KeptFile]:
    """Return the files that a cache folder lists; none if nothing was fetched into it."""
    path = cache / MANIFEST
    if not path.exists():
        return []
    return [KeptFile(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def _write_manifest(cache: Path, files: list[KeptFile]) -> None:
    entries = [vars(file) for file in sorted(files, key=lambda file: file.path)]
    partial = cache / (MANIFEST + ".partial")
    partial.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    partial.replace(cache / MANIFEST)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise ConfigError(f"{' '.join(command[:2])}: {last[0]}; run apt-get update, and check the package's name")


def _fetch(names: Sequence[str], cache: Path, suffixes: Sequence[str]) -> list[KeptFile]:
    # Beside the cache, so that moving the files is a rename.
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        # Commands run in it, and the cache may be given relative to where we are.
        work = Path(scratch).resolve()
        # apt drops its rights to the user _apt, who must be able to write here.
        work.chmod(0o777)
        _run(["apt-get", "download", *names], work)
        files = []
        for archive in sorted(work.glob("*.deb")):
            name, version = archive.name.split("_")[:2]
            root = work / name
            _run(["dpkg-deb", "-x", str(archive), str(root)], work)
            files += list(_keep(root, cache / name, suffixes, name, version.replace("%3a", ":")))
            shutil.rmtree(root)
        return [KeptFile(str(path.relative_to(cache)), name, version) for path, name, version in files]


def _keep(
    root: Path, target: Path, suffixes: Sequence[str], name: str, version: str
) -> Iterator[tuple[Path, str, str]]:
    """Move the wanted files of an unpacked package and its copyright file; name the wanted ones."""
    shutil.rmtree(target, ignore_errors=True)
    for source in sorted(root.rglob("*")):
        if source.is_symlink() or not source.is_file():
            continue
        plain = source.name.removesuffix(".gz")
        is_copyright = source.name == "copyright"
        if not is_copyright and not plain.lower().endswith(tuple(suffixes)):
            continue
        kept = target / ("copyright" if is_copyright else source.relative_to(root).with_name(plain))
        kept.parent.mkdir(parents=True, exist_ok=True)
        if plain != source.name:
            with gzip.open(source) as packed, kept.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        else:
            source.replace(kept)
        if not is_copyright:
            yield kept, name, version
