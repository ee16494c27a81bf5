"""Open a source of records from what a user names: a file, a pattern, a folder, or a hub id."""

from __future__ import annotations

import re
from glob import glob
from pathlib import Path

from slime_vlm.data.source import Source
from slime_vlm.data.sources.folder import FolderRecords
from slime_vlm.data.sources.hub_dataset import HubDataset, saved_by_datasets
from slime_vlm.data.sources.json_records import JsonRecords
from slime_vlm.data.sources.parquet import ParquetRecords
from slime_vlm.data.sources.tar_shards import TarShards
from slime_vlm.errors import DataError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_here(name: str | Path) -> bool:
    """Tell whether a file, a folder, or a file that matches a pattern is on this machine."""
    path = Path(name).expanduser()
    return path.is_dir() or path.is_file() or any(Path(match).is_file() for match in glob(str(path), recursive=True))


def check_source(name: str | Path, images: str | Path | None = None) -> None:
    """Check that a source exists, without opening it. Hub ids are not looked up.

    Args:
        name: As for `open_source`.
        images: As for `open_source`.

    Raises:
        DataError: The source or the image folder does not exist.
    """
    root = Path(images).expanduser() if images else None
    if root is not None and not root.exists():
        raise DataError(f"no image folder at {root}: expected a folder, or a zip or tar file")
    if not is_here(name) and not _is_hub_id(name):
        raise DataError(
            f"no records at {name}: expected a JSON or JSONL file of conversations, a Parquet or tar file, a folder, "
            "or a hub id (owner/name)"
        )


def _is_hub_id(name: str | Path) -> bool:
    return bool(_HUB_ID.fullmatch(str(name))) and Path(name).suffix not in {".json", ".jsonl", ".parquet", ".tar"}


def open_source(
    name: str | Path, images: str | Path | None = None, config: str | None = None, split: str | None = None
) -> Source:
    """Open a source of records.

    Args:
        name: A JSON, JSONL, Parquet or tar file; a pattern such as `shards/*.tar`; a folder of tars, of Parquet files,
            of images with texts beside them, or one that `datasets` saved. Or a hub id (owner/name).
        images: Where image paths start: a folder, or a zip or tar file. By default beside the records.
        config: Configuration of a hub data set.
        split: Split of a data set of the `datasets` library, by default `train`.

    Raises:
        DataError: The source does not exist or cannot be read.
        MediaError: A package that reads it is not installed.
    """
    check_source(name, images)
    path, root = Path(name).expanduser(), Path(images).expanduser() if images else None
    if path.is_dir():
        return _open_folder(path, root, split)
    if path.is_file():
        return _open_files(str(path), [path], root)
    found = sorted(Path(match) for match in glob(str(path), recursive=True) if Path(match).is_file())
    if found:
        return _open_files(str(name), found, root)
    return HubDataset(str(name), root, config, split or "train")


def _open_folder(path: Path, images: Path | None, split: str | None) -> Source:
    if saved_by_datasets(path):
        return HubDataset(str(path), images, split=split or "train")
    for ending in ("*.tar", "*.parquet"):
        found = sorted(path.glob(ending)) or sorted(path.rglob(ending))
        if found:
            return _open_files(str(path), found, images)
    return FolderRecords(path, images)


def _open_files(name: str, files: list[Path], images: Path | None) -> Source:
    ending = files[0].suffix
    if any(path.suffix != ending for path in files):
        raise DataError(f"{name} matches files of several kinds ({ending}, {files[-1].suffix}), expected one kind")
    if ending == ".parquet":
        return ParquetRecords(name, files, images)
    if ending == ".tar":
        if images is not None:
            raise DataError(f"{name} contains its own images: leave the image folder out")
        return TarShards(name, files)
    if len(files) > 1:
        raise DataError(f"{name} matches {len(files)} files: name JSON and JSONL files one by one, as a mixture")
    return JsonRecords(files[0], images)
