"""A data set of the `datasets` library: by hub id, or a folder that it saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slime_vlm.data.record import FIELDS
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError
from slime_vlm.extras import import_extra

_NOT_HERE = "no such file or folder, and reading it from the hub needs the datasets library"


class HubDataset(Source):
    """Rows of a split; they stay on the disk, where the library maps them into memory."""

    def __init__(self, name: str, images: Path | None = None, config: str | None = None, split: str = "train") -> None:
        """Args: hub id or folder, where image paths start (default: here), configuration and split.

        Raises:
            DataError: there is no such data set or split, or it has no column of turns.
            MediaError: the library is not installed.
        """
        super().__init__(name, images or (Path(name) if Path(name).is_dir() else Path()))
        what = "reading it needs the datasets library" if Path(name).is_dir() else _NOT_HERE
        library = import_extra("datasets", name, what, "data")
        try:
            if saved_by_datasets(Path(name)):
                found = library.load_from_disk(name)
                found = found[split] if isinstance(found, library.DatasetDict) else found
            else:
                found = library.load_dataset(name, config, split=split)
        # The library raises errors of many kinds (network, names, file formats), all of which mean the same here.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            here = "" if Path(name).is_dir() else "no such file or folder, and "
            raise DataError(
                f"{name}: {here}the data set cannot be loaded ({type(error).__name__}: {reason})"
            ) from error
        columns = [column for column in FIELDS if column in found.column_names]
        if not {"conversations", "messages"} & set(columns):
            raise DataError(f"{name} has no column 'conversations': it has {', '.join(found.column_names)}")
        self.rows = _undecoded(found.select_columns(columns), library)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def read(self, index: int) -> Any:
        """One row; images as `{"bytes", "path"}`."""
        return {key: value for key, value in self.rows[index].items() if value is not None}


def saved_by_datasets(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _undecoded(rows: Any, library: Any) -> Any:
    """Keep images as they are stored: they are opened by the rules that hold for all sources."""
    plain = library.Image(decode=False)
    for name in ("image", "images"):
        kind = rows.features.get(name)
        if isinstance(kind, library.Image):
            rows = rows.cast_column(name, plain)
        elif isinstance(getattr(kind, "feature", None), library.Image):
            rows = rows.cast_column(name, library.List(plain))
    return rows
