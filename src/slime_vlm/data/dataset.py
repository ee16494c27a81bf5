"""Several sources as one list of records, opened when they are taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slime_vlm.data.images import open_stored_image, stored_image_size
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError


class RecordDataset:
    """Records of one or more sources, one source after the other.

    Args:
        sources: the sources.
        open_image: what opens an image that is stored somewhere, from where its source's paths start.
    """

    def __init__(self, *sources: Source, open_image: Callable[[Any, Path], Any] = open_stored_image) -> None:
        self.sources, self.open_image = sources, open_image
        self.lengths = [len(source) for source in sources]
        self.starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def __len__(self) -> int:
        """Number of records."""
        return int(self.starts[-1])

    def place(self, index: int) -> tuple[int, int]:
        """Number of the source, and the place in it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return number, index - int(self.starts[number])

    def next_of_source(self, index: int, steps: int) -> int:
        """The record some steps on in the same source, which begins anew after its last."""
        number, place = self.place(index)
        return int(self.starts[number]) + (place + steps) % self.lengths[number]

    def limits(self, share: float) -> list[int]:
        """How many records of every source are a share of it; never all of them."""
        return [min(math.floor(share * length), length - 1) for length in self.lengths]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record in the published form, and its images opened, under `images`.

        Raises:
            DataError: it, or one of its images, cannot be used.
        """
        number, place = self.place(index)
        source = self.sources[number]
        record = source[place]
        try:
            images = [self.open_image(value, source.images) for value in record.images]
        except DataError as error:
            raise DataError(f"{self.name_of(index)}: {error}") from error
        return {"id": record.id, "images": images, "conversations": record.conversations}

    def sizes(self, index: int) -> tuple[list[tuple[int, int] | None], int]:
        """(height, width) of a record's images, None where only opening them tells, and the characters of its turns.

        Raises:
            DataError: the record cannot be read.
        """
        number, place = self.place(index)
        source = self.sources[number]
        record = source[place]
        turns = (str(turn.get("value", turn.get("content"))) for turn in record.conversations)
        return [stored_image_size(value, source.images) for value in record.images], sum(map(len, turns))

    def name_of(self, index: int) -> str:
        """How messages name a record: its source, and its id or else its place."""
        number, place = self.place(index)
        return self.sources[number].name_of(place)
