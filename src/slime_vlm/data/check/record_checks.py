"""Check one record: its turns, its images (decoded in full) and its length."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slime_vlm.data.check.findings import Finding
from slime_vlm.data.images import MissingImageError, open_stored_image
from slime_vlm.data.record import Record
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError, InputError
from slime_vlm.model.tiling import PUBLISHED_MAX_TILES, choose_grid
from slime_vlm.processing.chat_styles import CONTROL_TOKENS, IMAGE_PLACEHOLDER, PLACEHOLDERS, ROLES

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
    """

    index: int
    id: str | int | None = None
    findings: list[Finding] = field(default_factory=list)
    images: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    tiles: list[int] = field(default_factory=list)
    tokens: int | None = None
    digest: bytes = b""


class RecordChecker:
    """Check records of a source.

    Args:
        source: The records.
        processor: The processor of the model that will be trained. It determines tiles and tokens. Without one, tiles
            follow the published rule, and tokens are not counted.
        max_length: The largest number of tokens that is not over-long.
    """

    def __init__(self, source: Source, processor: SlimeProcessor | None = None, max_length: int = 2048) -> None:
        self.source, self.processor, self.max_length = source, processor, max_length
        self.view_size, self.max_tiles = 336, PUBLISHED_MAX_TILES
        self.special: list[str] = list(CONTROL_TOKENS)
        if processor is not None:
            cut = processor.image_processor
            self.view_size, self.max_tiles = cut.view_size, cut.max_tiles
            tokenizer: Any = processor.tokenizer
            self.special = [token for token in tokenizer.all_special_tokens if token != IMAGE_PLACEHOLDER]

    def check(self, index: int) -> CheckedRecord:
        """Run all checks that need one record only."""
        checked = CheckedRecord(index)
        try:
            record = self.source[index]
        except DataError as error:
            message = str(error).removeprefix(f"{self.source.name}: ")
            checked.findings.append(Finding(index, None, "unreadable", message))
            return checked
        checked.id, checked.images = record.id, len(record.images)
        checked.digest = hashlib.blake2b(
            json.dumps([record.images, record.conversations], default=repr, sort_keys=True).encode(), digest_size=8
        ).digest()
        for kind, message in self._images(record, self.source.images, checked):
            checked.findings.append(Finding(index, record.id, kind, message))
        for kind, message in self.text_problems(record, checked.sizes, checked):
            checked.findings.append(Finding(index, record.id, kind, message))
        return checked

    def _images(self, record: Record, root: Path, checked: CheckedRecord) -> list[tuple[str, str]]:
        problems = []
        for value in record.images:
            try:
                with open_stored_image(value, root) as image:
                    height, width = image.height, image.width
            except MissingImageError as error:
                problems.append(("missing-image", str(error)))
            except DataError as error:
                problems.append(("damaged-image", str(error)))
            else:
                checked.sizes.append((height, width))
                checked.tiles.append(choose_grid(height, width, self.view_size, self.max_tiles).num_tiles)
                if min(height, width) < LEAST_SIDE:
                    problems.append(
                        ("small-image", f"{height} x {width} pixels, expected at least {LEAST_SIDE} a side")
                    )
        return problems

    def text_problems(
        self, record: Record, sizes: list[tuple[int, int]], checked: CheckedRecord | None = None
    ) -> list[tuple[str, str]]:
        """Return the kind and message of everything that is wrong with the turns.

        Args:
            record: The record.
            sizes: (height, width) of its images. If one is missing, tokens are not counted.
            checked: Receives the number of tokens.
        """
        roles, problems = [], []
        count = 0
        for index, turn in enumerate(record.conversations):
            role = ROLES.get(str(turn.get("from", turn.get("role"))))
            value = turn.get("value", turn.get("content"))
            if role is None or not isinstance(value, str):
                return [
                    ("turn-order", f"turn {index} is {turn!r:.80}, expected 'from' (human or gpt) and 'value' (text)")
                ]
            if role != "system" or index > 0:
                roles.append(role)
            # The model replaces a placeholder in an answer as well, but there is no image for it.
            count += len(PLACEHOLDERS.findall(value))
            if not value.strip() and role != "system":
                kind = "empty-question" if role == "user" else "empty-answer"
                problems.append((kind, f"turn {index} is empty"))
            problems += [("special-token", f"turn {index} holds {token}") for token in self.special if token in value]
        if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
            order = ", ".join(roles) or "nothing"
            problems.append(("turn-order", f"the roles are {order:.100}, expected user and assistant in turn"))
        if count != len(record.images):
            problems.append(("placeholders", f"{count} {IMAGE_PLACEHOLDER} for {len(record.images)} image(s)"))
        if self.processor is not None and not problems and len(sizes) == len(record.images):
            problems += self._length_problems(record, sizes, checked)
        return problems

    def _length_problems(
        self, record: Record, sizes: list[tuple[int, int]], checked: CheckedRecord | None
    ) -> list[tuple[str, str]]:
        assert self.processor is not None
        grids = [choose_grid(height, width, self.view_size, self.max_tiles) for height, width in sizes]
        try:
            encoded = self.processor.encode_conversations(
                [record.conversations], image_grids=[(grid.rows, grid.cols) for grid in grids], return_tensors=None
            )
        except (DataError, InputError) as error:
            return [("placeholders", str(error))]
        tokens = len(encoded["input_ids"][0])
        if checked is not None:
            checked.tokens = tokens
        return [("over-long", f"{tokens} tokens, the limit is {self.max_length}")] if tokens > self.max_length else []
