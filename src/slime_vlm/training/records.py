"""Published conversation records as training samples: `{"id", "image", "conversations": [{"from", "value"}, ...]}`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from slime_vlm.errors import ConfigError, DataError, InputError, SlimeError
from slime_vlm.inputs import open_image
from slime_vlm.model.conversation import read_turns

if TYPE_CHECKING:
    from slime_vlm.model.processing_slime import SlimeProcessor


PUBLISHED_STYLES = ("v1", "llama3", "plain")


class RecordDataset(Dataset):
    """Records of a JSON (a list) or JSONL file; images are opened when a record is taken.

    Raises:
        DataError: the file is missing, is no such list, or a record lacks its conversation.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        """Args: the file, and the folder that image paths start from (default: the file's own)."""
        self.path = Path(path)
        self.images = Path(images) if images else self.path.parent
        if not self.path.is_file():
            raise DataError(f"no records at {path}: expected a JSON or JSONL file of conversations")
        try:
            text = self.path.read_text(encoding="utf-8")
            if text.lstrip().startswith("["):
                self.records: list[dict[str, Any]] = json.loads(text)
            else:
                self.records = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}") from error
        if not self.records:
            raise DataError(f"{path} holds no record")
        for index, record in enumerate(self.records):
            turns = record.get("conversations") if isinstance(record, dict) else None
            if not isinstance(turns, list) or not turns:
                raise DataError(f"{path}: record {index} has no 'conversations', expected a list of turns")

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record with its image opened (`image` is None for text alone)."""
        record = self.records[index]
        image = record.get("image")
        if not isinstance(image, str | None):
            raise DataError(
                f"{self.name_of(index)}: 'image' is {image!r:.80}, expected the path of one picture or none"
            )
        try:
            opened = None if image is None else open_image(self.images / image)
        except SlimeError as error:
            raise DataError(f"{self.name_of(index)}: {error}") from error
        return {**record, "image": opened}

    def name_of(self, index: int) -> str:
        """How messages name a record: its file, and its id or else its place."""
        return f"{self.path}: record {self.records[index].get('id', index)!r}"


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be used: its place in the file, and a line that names it and says why."""

    index: int
    reason: str


class RecordCollator:
    """Indices of records -> a batch with labels; a record that cannot be used is replaced by the next one of the file.

    Which record takes a place depends on the index alone, so a resumed run sees the same ones. The bad ones are listed
    in the batch, under `bad_records`, for the training process to count; workers do not know of one another.

    Args:
        dataset: the records.
        processor: what encodes them.
        style: a conversation style in place of the model's.
        labels: `answers` or `published`, see `text_encoding.encode_conversation`.
        max_length: the length that rows are cut to.
        max_bad: bad records in a row after which no other is tried.

    Raises:
        ConfigError: the published rule of labels is wanted for a conversation that has none.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        processor: SlimeProcessor,
        style: str | None = None,
        labels: str = "answers",
        max_length: int | None = None,
        max_bad: int = 0,
    ) -> None:
        wanted = style or getattr(processor.style, "name", "a chat template alone")
        if labels == "published" and wanted not in PUBLISHED_STYLES:
            raise ConfigError(
                f"data.labels: published, and the model's conversation is {wanted}; expected one that has a published "
                f"rule ({', '.join(PUBLISHED_STYLES)}), or labels: answers"
            )
        self.dataset, self.processor, self.max_bad = dataset, processor, max_bad
        self.options: dict[str, Any] = {"style": style, "label_rule": labels, "max_length": max_length}

    def __call__(self, indices: list[int]) -> dict[str, Any]:
        """Open and encode records."""
        bad: list[BadRecord] = []
        records = [self._usable(index, bad) for index in indices]
        found = [record for record in records if record is not None]
        if len(found) < len(records):
            return {"bad_records": bad}
        images = [[record["image"]] if record["image"] is not None else [] for record in found]
        conversations = [record["conversations"] for record in found]
        batch = self.processor.encode_conversations(conversations, images=images, **self.options)
        return {**batch, "bad_records": bad}

    def _usable(self, index: int, bad: list[BadRecord]) -> dict[str, Any] | None:
        """The first usable record from `index` on; None where too many are not."""
        for step in range(self.max_bad + 1):
            place = (index + step) % len(self.dataset)
            try:
                record = self.dataset[place]
                self._check(record, place)
            except DataError as error:
                bad.append(BadRecord(place, str(error)))
            else:
                return record
        return None

    def _check(self, record: dict[str, Any], index: int) -> None:
        """Encode the text of a record alone, which is where roles and placeholders show; pixels cost the time."""
        grids = [] if record["image"] is None else [(1, 1)]
        try:
            turns = read_turns(record["conversations"], len(grids))
            self.processor.encode_conversations([turns], image_grids=grids, **self.options)
        except (DataError, InputError) as error:
            raise DataError(f"{self.dataset.name_of(index)}: {error}") from error


class BadRecords:
    """Counts the records that could not be used, reports each once, and stops the run when they are too many.

    Args:
        dataset: the records.
        limit: how many may be bad.
        report: takes a line for each.
    """

    def __init__(self, dataset: RecordDataset, limit: int, report: Callable[[str], None]) -> None:
        self.dataset, self.limit, self.report = dataset, limit, report
        self.seen: set[int] = set()

    def add(self, records: list[BadRecord]) -> None:
        """Count what a batch lists.

        Raises:
            DataError: there are more than the limit.
        """
        for record in records:
            if record.index in self.seen:
                continue
            self.seen.add(record.index)
            if len(self.seen) > self.limit:
                raise DataError(
                    f"{record.reason}; that is bad record number {len(self.seen)} of {len(self.dataset)}, {self.limit} "
                    "may be: mend the file or raise data.max_bad"
                )
            self.report(f"left out: {record.reason}")
