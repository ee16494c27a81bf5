"""Records of Parquet files, one file or many shards, with a few row groups in memory at a time."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slime_vlm.data.record_formats import columns_of
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError
from slime_vlm.extras import import_extra

GROUPS_AT_HAND = 4
"""Number of row groups kept in memory. `mixture.shuffled` shuffles within as many."""


class ParquetRecords(Source):
    """Rows with the columns of a format of records, `id` and `image` (or `images`).

    An image is a path, bytes, or the `{"bytes", "path"}` that the `datasets` library writes.
    """

    def __init__(self, name: str, files: Sequence[Path], images: Path | None = None) -> None:
        """Find the row groups of the files.

        Args:
            name: The name of the source.
            files: Its files.
            images: Where image paths start, by default the folder of the first file.

        Raises:
            DataError: A file is damaged or lacks a column of turns, or all files are empty.
            MediaError: pyarrow is not installed.
        """
        super().__init__(name, images or files[0].parent)
        parquet = import_parquet(name)
        self.groups: list[tuple[Path, int]] = []
        rows: list[int] = []
        self.columns: list[str] = []
        for path in files:
            try:
                found = parquet.ParquetFile(path)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read as Parquet ({error}); download it again") from error
            self.columns = columns_of(found.schema_arrow.names)
            if not self.columns:
                raise DataError(
                    f"{path} has no column 'conversations', 'messages', 'query' or 'instruction': it has "
                    f"{', '.join(found.schema_arrow.names)}"
                )
            for group in range(found.num_row_groups):
                self.groups.append((path, group))
                rows.append(found.metadata.row_group(group).num_rows)
        self.starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        if not len(self):
            raise DataError(f"{name} has no record")
        self._at_hand: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.starts[-1])

    @property
    def blocks(self) -> Sequence[int]:
        """The number of rows of each group."""
        return [int(size) for size in np.diff(self.starts)]

    def read(self, index: int) -> Any:
        """Return one row. Its whole group is read, and kept for the next rows."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        row = self._rows(group).slice(index - int(self.starts[group]), 1).to_pylist()[0]
        return {key: value for key, value in row.items() if value is not None}

    def texts(self) -> Iterator[bytes]:
        """Yield every row as JSON, without bytes, which are read only with their column."""
        parquet = import_parquet(self.name)
        for path, group in self.groups:
            try:
                with parquet.ParquetFile(path) as file:
                    leaves = [file.schema.column(number) for number in range(len(file.schema))]
                    # Text has a logical type. Bytes of images have none.
                    plain = [leaf.path for leaf in leaves if not _holds_bytes(leaf)]
                    wanted = [name for name in plain if name.partition(".")[0] in self.columns]
                    rows = file.read_row_group(group, columns=wanted).to_pylist()
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: rows cannot be read ({error}); download it again") from error
            yield from (json.dumps(row, default=repr).encode() for row in rows)

    def _rows(self, group: int) -> Any:
        if group not in self._at_hand:
            parquet = import_parquet(self.name)
            path, number = self.groups[group]
            try:
                with parquet.ParquetFile(path) as file:
                    self._at_hand[group] = file.read_row_group(number, columns=self.columns)
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: rows cannot be read ({error}); download it again") from error
            while len(self._at_hand) > GROUPS_AT_HAND:
                self._at_hand.popitem(last=False)
        self._at_hand.move_to_end(group)
        return self._at_hand[group]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the rows in memory, because another process reads its own."""
        return {**self.__dict__, "_at_hand": OrderedDict()}


def _holds_bytes(leaf: Any) -> bool:
    return leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"


def import_parquet(name: str) -> Any:
    """Import `pyarrow.parquet`.

    Args:
        name: The file or folder to read, for the message.

    Raises:
        MediaError: pyarrow is not installed.
    """
    return import_extra("pyarrow.parquet", name, "reading Parquet files needs pyarrow", "data")
