"""Checkpoints are taken only as they were written, and removed by step (training/checkpoint_manifest.py)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from slime_vlm.training.checkpoint_manifest import (
    MANIFEST,
    complete_checkpoints,
    damage_of,
    describe_files,
    newest_checkpoint,
    remove_old_checkpoints,
    set_aside,
    sync,
    write_manifest,
)

NAMES = [
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "sums_0.json",
    "shards/0.distcp",
]


def write_checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "shards").mkdir(parents=True)
    for name in NAMES:
        (path / name).write_bytes(random.Random(f"{step} {name}").randbytes(1000))
    sync(path)
    write_manifest(path)
    return path


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[300:500] = random.Random(0).randbytes(200)
    path.write_bytes(content)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_by_hand(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "below" / "b").write_bytes(b"")
    (tmp_path / "left out").write_bytes(b"1")
    # The example of FIPS 180-4, and the hash of nothing.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    nothing = hashlib.sha256().hexdigest()
    expected = {"a": {"size": 3, "sha256": abc}, "below/b": {"size": 0, "sha256": nothing}}
    assert describe_files(tmp_path, without=("left out",)) == expected


@pytest.mark.parametrize("damage", [missing, noise, half, longer, one_bit, a_folder])
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_checkpoint_is_set_aside(name: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    before, newest = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    damage(newest / name)
    lines: list[str] = []
    assert newest_checkpoint(tmp_path, lines.append) == before
    (line,) = lines
    assert line.startswith("checkpoint-10 is damaged (")
    assert name in line
    assert line.endswith("set aside as damaged-checkpoint-10")
    kept = tmp_path / "damaged-checkpoint-10"
    assert len(list(kept.iterdir())) >= len(NAMES) - 1
    assert complete_checkpoints(tmp_path) == {9: before}
    assert newest_checkpoint(tmp_path, pytest.fail) == before


@pytest.mark.parametrize("damage", [empty, noise, half, longer, one_bit])
def test_a_damaged_manifest(damage: Callable[[Path], None], tmp_path: Path) -> None:
    before, newest = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    damage(newest / MANIFEST)
    lines: list[str] = []
    assert newest_checkpoint(tmp_path, lines.append) == before
    assert len(lines) == 1


@pytest.mark.parametrize("text", ["[]", "{}", '{"files": {}}', '{"files": {"model.safetensors": 1}}', "1", "null"])
def test_a_manifest_of_another_form(text: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1)
    (path / MANIFEST).write_text(text)
    assert str(damage_of(path)).startswith(MANIFEST)


def test_files_may_join_a_checkpoint(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1)
    (path / "note.txt").write_text("mine")
    assert damage_of(path) is None


def test_all_are_damaged(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        missing(write_checkpoint(tmp_path, step) / "optimizer.pt")
    (tmp_path / "damaged-checkpoint-2").mkdir()
    lines: list[str] = []
    assert newest_checkpoint(tmp_path, lines.append) is None
    assert [line.split()[0] for line in lines] == ["checkpoint-30", "checkpoint-2", "checkpoint-1"]
    assert (tmp_path / "damaged-checkpoint-2-2" / "scheduler.pt").exists(), "nothing is written over"


def test_checkpoints_of_earlier_versions(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 4)
    (path / MANIFEST).write_text("")
    lines: list[str] = []
    assert newest_checkpoint(tmp_path, lines.append) == path
    assert lines == ["checkpoint-4 is of an earlier version and has no hashes, its content is not checked"]
    later = write_checkpoint(tmp_path, 5)
    missing(later / "optimizer.pt")
    assert newest_checkpoint(tmp_path, lines.append) == path, "of before an update"
    missing(path / "optimizer.pt")
    assert damage_of(path) == "optimizer.pt is missing"
    (path / "optimizer_0").mkdir()
    assert damage_of(path) is None, "a sharded one"
    missing(path / "rng_state.pth")
    assert damage_of(path) == "rng_state.pth is missing"


def test_torn_checkpoints_are_removed(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "missing", pytest.fail) is None
    path = write_checkpoint(tmp_path, 10)
    missing(write_checkpoint(tmp_path, 30) / MANIFEST)
    (tmp_path / "checkpoint-copy").mkdir()
    lines: list[str] = []
    assert newest_checkpoint(tmp_path, lines.append) == path
    assert lines == ["checkpoint-30 was not written to its end, removed"]
    assert sorted(found.name for found in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-copy"]


def test_folders_that_cannot_be_synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    assert damage_of(write_checkpoint(tmp_path, 1)) is None
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        write_checkpoint(tmp_path, 2)


def test_old_checkpoints_are_removed_by_step(tmp_path: Path) -> None:
    for step, seconds in ((8, 4000), (9, 3000), (10, 2000), (101, 1000)):
        path = write_checkpoint(tmp_path, step)
        os.utime(path, (seconds, seconds))
    set_aside(write_checkpoint(tmp_path, 200))
    remove_old_checkpoints(tmp_path)
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        "checkpoint-10",
        "checkpoint-101",
        "damaged-checkpoint-200",
    ]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files come from /proc")
def test_nothing_is_marked_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of a crash: the content of every file, then their names, then the manifest, then its name."""
    path = write_checkpoint(tmp_path, 1)
    (path / MANIFEST).unlink()
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path).as_posix())
        fsync(descriptor)

    def renaming(self: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Path, "replace", renaming)
    sync(path)
    write_manifest(path)
    top = "checkpoint-1"
    files = [f"{top}/{name}" for name in sorted(NAMES)]
    folders = [f"{top}/shards", top, "."]
    assert events == [*files, *folders, f"{top}/{MANIFEST}.{os.getpid()}", f"rename to {MANIFEST}", top]
    assert json.loads((path / MANIFEST).read_text())["files"].keys() == set(NAMES)
