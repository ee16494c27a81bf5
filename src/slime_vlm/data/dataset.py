"""Several sources as one list of records, whose images are opened on access."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from slime_vlm.data.images import open_stored_image, stored_image_size
from slime_vlm.data.reading import Encode, OpenImage, Reading, read_whole
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError


class RecordDataset:
    """Records of one or more sources, one source after the other.

    Args:
        sources: The sources.
        open_image: Opens a stored image, given its value in the record and the folder that paths start from.
    """

    def __init__(self, *sources: Source, open_image: OpenImage = open_stored_image) -> None:
        self.sources, self.open_image = sources, open_image
        self.lengths = [len(source) for source in sources]
        self.starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def __len__(self) -> int:
        """Return the number of records."""
        return int(self.starts[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """Return the number of the source, and the index within it.

        Raises:
            IndexError: There is no such record.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return number, index - int(self.starts[number])

    def next_of_source(self, index: int, steps: int) -> int:
        """Return the index of the record some steps further in the same source. After the last comes the first."""
        number, row = self.locate(index)
        return int(self.starts[number]) + (row + steps) % self.lengths[number]

    def limits(self, share: float) -> list[int]:
        """Return how many records of each source make up a share of it, but never all of them."""
        return [min(math.floor(share * length), length - 1) for length in self.lengths]

    def read(self, index: int, encode: Encode | None = None) -> Reading:
        """Read a record and open its images, and note what is wrong with it, see `reading.read_whole`.

        Raises:
            DataError: Training refuses the record.
        """
        number, row = self.locate(index)
        source = self.sources[number]
        reading = read_whole(source, row, self.open_image, encode)
        if reading.refusal is not None:
            raise DataError(f"{source.name_of(row, reading.id)}: {reading.refusal.message}")
        return reading

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the `id` and `conversations` of a record in the published form, and its opened `images`.

        Raises:
            DataError: Training refuses the record.
        """
        reading = self.read(index)
        assert reading.record is not None
        return {"id": reading.id, "images": reading.images, "conversations": reading.record.conversations}

    def sizes(self, index: int) -> tuple[list[tuple[int, int] | None], int]:
        """Return the sizes of a record's images, and the number of characters of its turns.

        A size is (height, width), or None if the header of the image does not tell.

        Raises:
            DataError: The record cannot be read.
        """
        number, row = self.locate(index)
        source = self.sources[number]
        record = source[row]
        characters = sum(len(turn["value"]) for turn in record.conversations)
        return [stored_image_size(value, source.images) for value in record.images], characters

    def name_of(self, index: int) -> str:
        """Return the name of a record in messages: its source, and its id or else its index."""
        number, row = self.locate(index)
        source = self.sources[number]
        try:
            return source.name_of(row, source[row].id)
        except DataError:
            return source.name_of(row, None)
