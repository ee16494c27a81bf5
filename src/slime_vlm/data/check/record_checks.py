"""Check one record: its turns, its images (decoded in full) and its length."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slime_vlm.data.check.findings import Finding
from slime_vlm.data.images import open_stored_image
from slime_vlm.data.problems import Problem, refusal
from slime_vlm.data.reading import Encode, read_turns_of, read_whole
from slime_vlm.data.record import Record
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError, InputError
from slime_vlm.media import MAX_MEMORY
from slime_vlm.model.tiling import PUBLISHED_MAX_TILES, choose_grid
from slime_vlm.processing.chat_styles import CONTROL_TOKENS, IMAGE_PLACEHOLDER, Turn

if TYPE_CHECKING:
    from slime_vlm.processing.processing_slime import SlimeProcessor

LEAST_SIDE = 8
"""Smallest allowed side of an image, in pixels."""


@dataclass
class CheckedRecord:
    """What the checks found out about one record.

    Attributes:
        index: Index of the record in its source.
        id: Its id, or None.
        findings: What is wrong with it.
        images: How many images it names.
        sizes: (height, width) of those that could be opened.
        tiles: The number of tiles of each of those.
        tokens: Length with all tokens of the images. None without a model, or if the record cannot be encoded.
        digest: Hash of the content, equal for equal records.
        readable: Whether its keys and turns could be read.
    """

    index: int
    id: str | int | None = None
    findings: list[Finding] = field(default_factory=list)
    images: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    tiles: list[int] = field(default_factory=list)
    tokens: int | None = None
    digest: bytes = b""
    readable: bool = False

    @property
    def usable(self) -> bool:
        """Whether training reads the record."""
        return not any(finding.refused for finding in self.findings)


class RecordChecker:
    """Check records of a source.

    Args:
        source: The records.
        processor: The processor of the model that will be trained. It determines tiles and tokens. Without one, tiles
            follow the published rule, and tokens are not counted.
        max_length: The largest number of tokens that is not over-long.
        max_memory: The most memory that opening an image may take, in bytes. Training has the default.
    """

    def __init__(
        self,
        source: Source,
        processor: SlimeProcessor | None = None,
        max_length: int = 2048,
        max_memory: int = MAX_MEMORY,
    ) -> None:
        self._open_size = partial(_size_of, max_memory=max_memory)
        self.source, self.processor, self.max_length = source, processor, max_length
        self.tiling = (336, PUBLISHED_MAX_TILES, 0)
        self.special: list[str] = list(CONTROL_TOKENS)
        if processor is not None:
            cut = processor.image_processor
            self.tiling = (cut.view_size, cut.max_tiles, cut.tile_margin)
            tokenizer: Any = processor.tokenizer
            # `all_special_tokens` lacks tokens that only a chat template names, such as nano's <assistant>.
            added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
            named = dict.fromkeys([*tokenizer.all_special_tokens, *added])
            self.special = [token for token in named if token != IMAGE_PLACEHOLDER]

    def check(self, index: int) -> CheckedRecord:
        """Run all checks that need one record only."""
        checked = CheckedRecord(index)
        reading = read_whole(self.source, index, self._open_size, self._counting(checked))
        record = reading.record
        problems = list(reading.problems)
        if record is not None:
            checked.id, checked.images, checked.sizes = record.id, len(record.images), reading.images
            checked.readable = True
            checked.digest = hashlib.blake2b(
                json.dumps([record.images, record.conversations], default=repr, sort_keys=True).encode(), digest_size=8
            ).digest()
            grids = [choose_grid(*size, *self.tiling) for size in checked.sizes]
            checked.tiles = [grid.num_tiles for grid in grids]
            problems += _small_images(checked.sizes) + self._special_tokens(record) + self._over_long(checked)
        checked.findings = [
            Finding(index, reading.id, problem.kind, problem.message, problem.refused) for problem in problems
        ]
        return checked

    def text_problems(self, record: Record, sizes: list[tuple[int, int]]) -> list[Problem]:
        """Return everything that is wrong with the turns of a record, given the (height, width) of all its images."""
        checked = CheckedRecord(0)
        turns, problems = read_turns_of(record)
        encode = self._counting(checked)
        if turns and encode is not None:
            try:
                encode(turns, sizes)
            except (DataError, InputError) as error:
                problems.append(refusal("chat-template", error))
        return problems + self._special_tokens(record) + self._over_long(checked)

    def _counting(self, checked: CheckedRecord) -> Encode | None:
        """Return a function that counts the tokens of turns and image sizes; None without a model."""
        processor = self.processor
        if processor is None:
            return None

        def encode(turns: list[Turn], sizes: list[tuple[int, int]]) -> None:
            grids = [choose_grid(*size, *self.tiling) for size in sizes]
            encoded = processor.encode_conversations(
                [turns], image_grids=[(grid.rows, grid.cols) for grid in grids], return_tensors=None
            )
            checked.tokens = len(encoded["input_ids"][0])

        return encode

    def _special_tokens(self, record: Record) -> list[Problem]:
        return [
            Problem("special-token", f"turn {index} holds {token}", refused=False)
            for index, turn in enumerate(record.conversations)
            for token in self.special
            if token in turn["value"]
        ]

    def _over_long(self, checked: CheckedRecord) -> list[Problem]:
        if checked.tokens is None or checked.tokens <= self.max_length:
            return []
        return [Problem("over-long", f"{checked.tokens} tokens, the limit is {self.max_length}", refused=False)]


def _size_of(value: Any, root: Path, max_memory: int) -> tuple[int, int]:
    """Decode an image in full, and return its (height, width)."""
    with open_stored_image(value, root, max_memory) as image:
        return image.height, image.width


def _small_images(sizes: list[tuple[int, int]]) -> list[Problem]:
    return [
        Problem("small-image", f"{height} x {width} pixels, expected at least {LEAST_SIDE} a side", refused=False)
        for height, width in sizes
        if min(height, width) < LEAST_SIDE
    ]
