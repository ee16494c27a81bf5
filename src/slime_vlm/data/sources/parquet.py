"""Records of Parquet files, one file or many shards; a few groups of rows are in memory at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slime_vlm.data.record import FIELDS
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError
from slime_vlm.extras import import_extra

GROUPS_AT_HAND = 4
"""Row groups kept in memory; `mixture` shuffles within as many."""


class ParquetRecords(Source):
    """Rows with the columns `conversations` (or `messages`), `id` and `image` (or `images`).

    An image is a path, bytes, or the `{"bytes", "path"}` that the `datasets` library writes.
    """

    def __init__(self, name: str, files: Sequence[Path], images: Path | None = None) -> None:
        """Args: the source's name, its files, and where image paths start (default: the first file's folder).

        Raises:
            DataError: a file is damaged, lacks a column of turns, or all are empty.
            MediaError: pyarrow is not installed.
        """
        super().__init__(name, images or files[0].parent)
        parquet = import_extra("pyarrow.parquet", name, "reading Parquet files needs pyarrow", "data")
        self.groups: list[tuple[Path, int]] = []
        rows: list[int] = []
        self.columns: list[str] = []
        for path in files:
            try:
                found = parquet.ParquetFile(path)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read as Parquet ({error}); fetch it again") from error
            self.columns = [column for column in FIELDS if column in found.schema_arrow.names]
            if not {"conversations", "messages"} & set(self.columns):
                raise DataError(f"{path} has no column 'conversations': it has {', '.join(found.schema_arrow.names)}")
            for group in range(found.num_row_groups):
                self.groups.append((path, group))
                rows.append(found.metadata.row_group(group).num_rows)
        self.starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        if not len(self):
            raise DataError(f"{name} holds no record")
        self._at_hand: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.starts[-1])

    @property
    def blocks(self) -> Sequence[int]:
        """Rows of every group."""
        return [int(size) for size in np.diff(self.starts)]

    def read(self, index: int) -> Any:
        """One row; its whole group is read, and kept for the rows that come next."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        row = self._rows(group).slice(index - int(self.starts[group]), 1).to_pylist()[0]
        return {key: value for key, value in row.items() if value is not None}

    def _rows(self, group: int) -> Any:
        if group not in self._at_hand:
            parquet = import_extra("pyarrow.parquet", self.name, "reading Parquet files needs pyarrow", "data")
            path, number = self.groups[group]
            try:
                with parquet.ParquetFile(path) as file:
                    self._at_hand[group] = file.read_row_group(number, columns=self.columns)
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: rows cannot be read ({error}); fetch it again") from error
            while len(self._at_hand) > GROUPS_AT_HAND:
                self._at_hand.popitem(last=False)
        self._at_hand.move_to_end(group)
        return self._at_hand[group]

    def __getstate__(self) -> dict[str, Any]:
        """Without the rows at hand: another process reads its own."""
        return {**self.__dict__, "_at_hand": OrderedDict()}
