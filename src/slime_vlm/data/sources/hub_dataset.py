"""Records of the `datasets` library: a hub id, or a folder that the library saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.record_formats import OTHER_MEDIA, columns_of
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError, one_line
from slime_vlm.extras import import_extra

_NOT_HERE = "no such file or folder, and reading it from the hub needs the datasets library"


class HubDataset(Source):
    """Rows of a split. They stay on the disk, and the library maps them into memory."""

    def __init__(self, name: str, images: Path | None = None, config: str | None = None, split: str = "train") -> None:
        """Load a split.

        Args:
            name: Hub id or folder.
            images: Where image paths start, by default the folder itself, or the current folder for a hub id.
            config: Configuration of a hub data set.
            split: Name of the split.

        Raises:
            DataError: The data set or split does not exist, or has no column of turns.
            MediaError: The library is not installed.
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
        # The library raises many kinds of errors (network, names, file formats). Here they all mean the same.
        except Exception as error:
            here = "" if Path(name).is_dir() else "no such file or folder, and "
            raise DataError(
                f"{name}: {here}the data set cannot be loaded ({type(error).__name__}: {one_line(error)})"
            ) from error
        columns = columns_of(found.column_names)
        if not columns:
            raise DataError(
                f"{name} has no column 'conversations', 'messages', 'query' or 'instruction': it has "
                f"{', '.join(found.column_names)}"
            )
        # As stored: images stay undecoded at any depth, because `images.open_stored_image` opens those of all sources.
        self.rows = found.select_columns(columns).with_format("arrow")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def read(self, index: int) -> Any:
        """Return one row, with images as `{"bytes", "path"}`."""
        (row,) = self.rows[index].to_pylist()
        return {key: value for key, value in row.items() if value is not None}

    def texts(self) -> Iterator[bytes]:
        """Yield every row as JSON, without its columns of images and other media."""
        media = ("image", "images", *OTHER_MEDIA)
        texts = self.rows.select_columns([name for name in self.rows.column_names if name not in media])
        for table in texts.iter(batch_size=1000):
            yield from (json.dumps(row, default=repr).encode() for row in table.to_pylist())


def saved_by_datasets(path: Path) -> bool:
    """Tell whether `save_to_disk` wrote a folder."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
