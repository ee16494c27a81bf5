"""Conversation records as training samples, and the handling of records that cannot be used."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slime_vlm.data import RecordDataset
from slime_vlm.data.reading import Reading
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.processing.chat_styles import Turn
from slime_vlm.training.features.cache import StoredImage, pixel_values_of

if TYPE_CHECKING:
    from slime_vlm.processing.processing_slime import SlimeProcessor


PUBLISHED_STYLES = ("v1", "llama3", "plain")


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be used: its index in the data, and one line that names it and gives the reason."""

    index: int
    reason: str


class RecordCollator:
    """Collate indices of records into a batch with labels. An unusable record is replaced by the next of its source.

    The replacement depends on the index alone, so a resumed run gets the same records. The batch lists bad records
    under `bad_records` for the training process to count, since workers do not know of one another.

    Args:
        dataset: The records.
        processor: Encodes the records.
        style: A conversation style in place of the model's.
        labels: `answers` or `published`, see `processing.tokenization.encode_conversation`.
        max_length: Length that rows are cut to.
        limits: For every source, the number of bad records after which no other is tried; 0 by default.
        views: Config `views` of the model, for images with stored features.

    Raises:
        ConfigError: `labels` is `published`, and the conversation style has no published label rule.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        processor: SlimeProcessor,
        style: str | None = None,
        labels: str = "answers",
        max_length: int | None = None,
        limits: Sequence[int] | None = None,
        views: str = "both",
    ) -> None:
        wanted = style or getattr(processor.style, "name", "a chat template alone")
        if labels == "published" and wanted not in PUBLISHED_STYLES:
            raise ConfigError(
                f"data.labels is published and the model's conversation is {wanted}; expected one with a published "
                f"label rule ({', '.join(PUBLISHED_STYLES)}), or labels: answers"
            )
        self.dataset, self.processor, self.views = dataset, processor, views
        self.limits = limits or [0] * len(dataset.sources)
        self.options: dict[str, Any] = {"style": style, "label_rule": labels, "max_length": max_length}

    def __call__(self, indices: list[int]) -> dict[str, Any]:
        """Open and encode the records of some indices."""
        bad: list[BadRecord] = []
        records = [self.usable(index, bad) for index in indices]
        found = [record for record in records if record is not None]
        if len(found) < len(records):
            return {"bad_records": bad}
        images = [record.images for record in found]
        conversations = [record.turns for record in found]
        stored = [image for row in images for image in row if isinstance(image, StoredImage)]
        if stored:
            grids = [image.grid for image in stored]
            batch = self.processor.encode_conversations(conversations, image_grids=grids, **self.options)
            batch.update(pixel_values_of(stored, self.views))
        else:
            batch = self.processor.encode_conversations(conversations, images=images, **self.options)
        return {**batch, "bad_records": bad}

    def usable(self, index: int, bad: list[BadRecord]) -> Reading | None:
        """Return the first usable record from `index` on; None if too many are unusable."""
        number, _ = self.dataset.locate(index)
        for step in range(self.limits[number] + 1):
            candidate = self.dataset.next_of_source(index, step)
            try:
                return self.dataset.read(candidate, self._encode_text)
            except DataError as error:
                bad.append(BadRecord(candidate, str(error)))
        return None

    def _encode_text(self, turns: list[Turn], images: list[Any]) -> None:
        """Encode only the text of a record: a chat template may refuse it, and the pixels would cost much."""
        self.processor.encode_conversations([turns], image_grids=[(1, 1)] * len(images), **self.options)


def part_of_limits(limits: Sequence[int], processes: int, passes: Sequence[float]) -> list[int]:
    """Return how many records of every source may be bad on one process, which counts the bad ones that it meets.

    In one pass, a process meets its part of a source; in several passes, more and more of it. So no process has to ask
    the others. Parts are rounded up, so the whole run may exceed the limit a little: a tenth of 50 records is less than
    one on each of 8 processes, and the first bad record should not stop the run.

    Args:
        limits: Number of records of every source that may be bad.
        processes: Number of processes.
        passes: Passes of the run through every source; less than 1 counts as 1.
    """
    met = [min(max(1.0, times), processes) for times in passes]
    return [math.ceil(limit * times / processes) for limit, times in zip(limits, met, strict=True)]


def share_of_seen(lists: Sequence[Sequence[int]], process: int, processes: int) -> set[int]:
    """Return the bad records that a process of a resumed run starts with.

    Args:
        lists: Bad records of every process when the checkpoint was written.
        process: Index of this process.
        processes: Number of processes of the resumed run.

    Returns:
        Its own list if the number of processes is the same. Otherwise an even share of every source, so that the sum
        stays the same and no process exceeds its part of a limit (`part_of_limits`) that the whole run kept.
    """
    if len(lists) == processes:
        return set(lists[process])
    # Records of one source have neighbouring indices, so a stride takes an even share of each.
    return set(sorted({index for seen in lists for index in seen})[process::processes])


class BadRecords:
    """Count the records that cannot be used, report each of them once, and stop the run if there are too many.

    Args:
        dataset: The records.
        limits: Number of records of every source that may be bad.
        report: Called with one line per bad record.
        file: A JSONL file that lists all of them, to find them after the run; None for none.
    """

    def __init__(
        self, dataset: RecordDataset, limits: Sequence[int], report: Callable[[str], None], file: Path | None = None
    ) -> None:
        self.dataset, self.limits, self.report, self.file = dataset, limits, report, file
        self.seen: set[int] = set()
        self._written = _listed(file) if file is not None and file.is_file() else set()

    def add(self, records: list[BadRecord]) -> None:
        """Count the bad records of a batch.

        Raises:
            DataError: A source has more bad records than its limit.
        """
        for record in records:
            if record.index in self.seen:
                continue
            self.seen.add(record.index)
            self._write(record)
            number, _ = self.dataset.locate(record.index)
            bad = sum(self.dataset.locate(index)[0] == number for index in self.seen)
            if bad > self.limits[number]:
                raise DataError(
                    f"{record.reason}; that is bad record number {bad} of {self.dataset.lengths[number]}, expected at "
                    f"most {self.limits[number]}: repair the data (slime data check finds all) or raise data.max_bad"
                )
            self.report(f"left out: {record.reason}")

    def _write(self, record: BadRecord) -> None:
        if self.file is None or record.index in self._written:
            return
        number, position = self.dataset.locate(record.index)
        source = self.dataset.sources[number].name
        line = {"index": record.index, "source": source, "place": position, "reason": record.reason}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _listed(file: Path) -> set[int]:
    """Return the indices in a list of bad records. A line that a kill left unfinished is closed, and not counted."""
    found: set[int] = set()
    content = file.read_text(encoding="utf-8", errors="replace")
    if content and not content.endswith("\n"):
        with file.open("a", encoding="utf-8") as lines:
            lines.write("\n")
    for line in content.splitlines():
        try:
            found.add(int(json.loads(line)["index"]))
        except (ValueError, LookupError, TypeError):
            continue
    return found
