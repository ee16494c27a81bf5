"""Conversation records as training samples, and what becomes of those that cannot be used."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slime_vlm.data import RecordDataset
from slime_vlm.errors import ConfigError, DataError, InputError
from slime_vlm.processing.chat_styles import read_turns
from slime_vlm.training.features.cache import StoredImage, pixel_values_of

if TYPE_CHECKING:
    from slime_vlm.processing.processing_slime import SlimeProcessor


PUBLISHED_STYLES = ("v1", "llama3", "plain")


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be used: its place in the data, and a line that names it and says why."""

    index: int
    reason: str


class RecordCollator:
    """Indices of records -> a batch with labels; a record that cannot be used is replaced by the next of its source.

    Which record takes a place depends on the index alone, so a resumed run sees the same ones. The bad ones are listed
    in the batch, under `bad_records`, for the training process to count; workers do not know of one another.

    Args:
        dataset: the records.
        processor: what encodes them.
        style: a conversation style in place of the model's.
        labels: `answers` or `published`, see `text_encoding.encode_conversation`.
        max_length: the length that rows are cut to.
        limits: bad records of every source after which no other is tried; none by default.
        views: config `views` of the model, for images whose features are stored.

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
        limits: Sequence[int] | None = None,
        views: str = "both",
    ) -> None:
        wanted = style or getattr(processor.style, "name", "a chat template alone")
        if labels == "published" and wanted not in PUBLISHED_STYLES:
            raise ConfigError(
                f"data.labels: published, and the model's conversation is {wanted}; expected one that has a published "
                f"rule ({', '.join(PUBLISHED_STYLES)}), or labels: answers"
            )
        self.dataset, self.processor, self.views = dataset, processor, views
        self.limits = limits or [0] * len(dataset.sources)
        self.options: dict[str, Any] = {"style": style, "label_rule": labels, "max_length": max_length}

    def __call__(self, indices: list[int]) -> dict[str, Any]:
        """Open and encode records."""
        bad: list[BadRecord] = []
        records = [self.usable(index, bad) for index in indices]
        found = [record for record in records if record is not None]
        if len(found) < len(records):
            return {"bad_records": bad}
        images = [record["images"] for record in found]
        conversations = [record["conversations"] for record in found]
        stored = [image for row in images for image in row if isinstance(image, StoredImage)]
        if stored:
            grids = [image.grid for image in stored]
            turns = [read_turns(turns, len(row)) for turns, row in zip(conversations, images, strict=True)]
            batch = self.processor.encode_conversations(turns, image_grids=grids, **self.options)
            batch.update(pixel_values_of(stored, self.views))
        else:
            batch = self.processor.encode_conversations(conversations, images=images, **self.options)
        return {**batch, "bad_records": bad}

    def usable(self, index: int, bad: list[BadRecord]) -> dict[str, Any] | None:
        """The first usable record from `index` on; None where too many are not."""
        number, _ = self.dataset.locate(index)
        for step in range(self.limits[number] + 1):
            place = self.dataset.next_of_source(index, step)
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
        grids = [(1, 1)] * len(record["images"])
        try:
            turns = read_turns(record["conversations"], len(grids))
            if not any(turn.role == "assistant" for turn in turns):
                raise DataError("no answer after a question, expected turns of human and gpt that begin with human")
            self.processor.encode_conversations([turns], image_grids=grids, **self.options)
        except (DataError, InputError) as error:
            raise DataError(f"{self.dataset.name_of(index)}: {error}") from error


def part_of_limits(limits: Sequence[int], processes: int, passes: Sequence[float]) -> list[int]:
    """How many records of every source may be bad on one process, each of which counts the different ones it meets.

    In one pass a process meets its part of a source, in several passes more and more of it, bad ones with the others.
    So no process has to ask the others, and the whole run may go over the limit a little: a part is rounded up, as a
    tenth of 50 records is less than one on each of 8 processes, and the first bad one no reason to stop.

    Args:
        limits: how many records of every source may be bad.
        processes: number of processes.
        passes: how often the run goes through every source; less than once counts as once.
    """
    met = [min(max(1.0, times), processes) for times in passes]
    return [math.ceil(limit * times / processes) for limit, times in zip(limits, met, strict=True)]


def share_of_seen(lists: Sequence[Sequence[int]], process: int, processes: int) -> set[int]:
    """The bad records that a process of a resumed run has counted already.

    Args:
        lists: those that each process had counted when the checkpoint was written.
        process: number of this one.
        processes: how many go on.

    Returns:
        Its own where as many go on; else an even share of every source, so that the sum stays what it was and no
        process is past its part of a limit (`part_of_limits`) that all together were not past.
    """
    if len(lists) == processes:
        return set(lists[process])
    # Records of a source lie side by side.
    return set(sorted({index for seen in lists for index in seen})[process::processes])


class BadRecords:
    """Counts the records that could not be used, reports each once, and stops the run when they are too many.

    Args:
        dataset: the records.
        limits: how many of every source may be bad.
        report: takes a line for each.
        file: a JSONL file that lists them all, so that they can be found when the run is long over; None for none.
    """

    def __init__(
        self, dataset: RecordDataset, limits: Sequence[int], report: Callable[[str], None], file: Path | None = None
    ) -> None:
        self.dataset, self.limits, self.report, self.file = dataset, limits, report, file
        self.seen: set[int] = set()
        written = file.read_text(encoding="utf-8").splitlines() if file is not None and file.is_file() else []
        self._written = {json.loads(line)["index"] for line in written}

    def add(self, records: list[BadRecord]) -> None:
        """Count what a batch lists.

        Raises:
            DataError: there are more than the limit of their source.
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
                    f"{record.reason}; that is bad record number {bad} of {self.dataset.lengths[number]}, "
                    f"{self.limits[number]} may be: mend the data (slime data check finds all) or raise data.max_bad"
                )
            self.report(f"left out: {record.reason}")

    def _write(self, record: BadRecord) -> None:
        if self.file is None or record.index in self._written:
            return
        number, place = self.dataset.locate(record.index)
        source = self.dataset.sources[number].name
        line = {"index": record.index, "source": source, "place": place, "reason": record.reason}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
