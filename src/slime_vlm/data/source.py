"""What every kind of source gives: a number of records, and any of them by its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slime_vlm.data.record import Record, read_record
from slime_vlm.errors import DataError


class Source(ABC):
    """Records by index; what is kept in memory is where each of them lies, not what it holds.

    Any record can be read at any time, so the order of a run is plain arithmetic (`mixture.MixtureOrder`) and a resumed
    run needs to know nothing but its number of steps.

    Attributes:
        name: what messages call the source.
        images: the folder, or archive, that image paths start from.
    """

    def __init__(self, name: str, images: Path) -> None:
        self.name, self.images = name, images

    @abstractmethod
    def __len__(self) -> int:
        """Number of records."""

    @abstractmethod
    def read(self, index: int) -> Any:
        """What is stored at a place, as plain data.

        Raises:
            DataError: it cannot be read.
        """

    @property
    def blocks(self) -> Sequence[int] | None:
        """Numbers of records that are read from the disk together, None where each is read alone."""
        return None

    def __getitem__(self, index: int) -> Record:
        """The record of a place, its images not opened.

        Raises:
            DataError: there is no usable record. The message names the source, and its id or else its place.
        """
        raw = None
        try:
            raw = self.read(index)
            return read_record(raw)
        except DataError as error:
            found = raw.get("id") if isinstance(raw, dict) else None
            name = repr(found) if isinstance(found, str | int) else index
            raise DataError(f"{self.name}: record {name}: {error}") from None

    def name_of(self, index: int) -> str:
        """How messages name a record: the source, and its id or else its place."""
        try:
            found = self[index].id
        except DataError:
            found = None
        return f"{self.name}: record {index if found is None else found!r}"
