"""The interface of all sources: the number of records, and any record by its index."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slime_vlm.data.record import Record, id_of, read_record
from slime_vlm.errors import DataError


class Source(ABC):
    """Records by index. Memory holds the position of each record, not its content.

    Any record can be read at any time. So the order of a run is plain arithmetic (`mixture.MixtureOrder`), and a
    resumed run needs only its number of steps.

    Attributes:
        name: The name of the source in messages.
        images: The folder or archive that image paths start from.
    """

    def __init__(self, name: str, images: Path) -> None:
        self.name, self.images = name, images

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of records."""

    @abstractmethod
    def read(self, index: int) -> Any:
        """Return what is stored at an index, as plain data.

        Raises:
            DataError: The record cannot be read.
        """

    @property
    def blocks(self) -> Sequence[int] | None:
        """The sizes of the blocks of records that are read together, or None if each record is read alone."""
        return None

    def texts(self) -> Iterator[bytes]:
        """Yield every record in order as JSON, to tell whether it changed.

        Bytes of images are left out where they can be. A record that cannot be read stands for itself by its error.
        """
        for index in range(len(self)):
            try:
                raw = self.read(index)
            except DataError as error:
                raw = str(error)
            yield json.dumps(raw, default=repr).encode()

    def __getitem__(self, index: int) -> Record:
        """Return a record, its images not opened.

        Raises:
            DataError: The record cannot be used. The message names the source, and the id of the record or its index.
        """
        raw = None
        try:
            raw = self.read(index)
            return read_record(raw)
        except DataError as error:
            raise DataError(f"{self.name_of(index, id_of(raw))}: {error}") from None

    def name_of(self, index: int, identity: str | int | None) -> str:
        """Return the name of a record in messages: the source, and the id or else the index."""
        return f"{self.name}: record {index if identity is None else identity!r}"
