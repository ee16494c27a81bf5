"""Check all records of a source, in one or several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from slime_vlm.data.check.findings import Finding
from slime_vlm.data.check.record_checks import CheckedRecord, RecordChecker
from slime_vlm.data.check.report import SourceReport
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError
from slime_vlm.media import MAX_MEMORY

if TYPE_CHECKING:
    from slime_vlm.processing.processing_slime import SlimeProcessor

# Large enough that distributing work costs little, small enough that the progress bar moves.
_CHUNK = 32


def check_source(
    source: Source,
    model: str | None = None,
    max_length: int = 2048,
    workers: int = 1,
    advance: Callable[[int], None] = lambda count: None,
    max_memory: int = MAX_MEMORY,
) -> SourceReport:
    """Check every record of a source.

    Args:
        source: The records.
        model: The model whose tiles and tokens are counted, see `processor_of`. Without one, tokens are not counted.
        max_length: The largest number of tokens that is not over-long.
        workers: Number of processes. 1 means this one.
        advance: Called with the number of records that were just checked.
        max_memory: The most memory that opening an image may take, in bytes. Training has the default.

    Raises:
        CheckpointError: The model does not exist.
        DataError: A process died.
    """
    report = SourceReport(source.name, len(source))
    seen: dict[str | int, tuple[int, bytes]] = {}
    for checked in _check_all(source, model, max_length, workers, max_memory):
        if checked.id is not None:
            first = seen.setdefault(checked.id, (checked.index, checked.digest))
            if first[0] != checked.index:
                kind = "duplicate" if first[1] == checked.digest else "duplicate-id"
                message = f"record {first[0]} has the same id"
                checked.findings.append(Finding(checked.index, checked.id, kind, message))
        report.add(checked)
        advance(1)
    return report


def _check_all(
    source: Source, model: str | None, max_length: int, workers: int, max_memory: int
) -> Iterator[CheckedRecord]:
    if workers == 1:
        checker = _checker(source, model, max_length, max_memory)
        yield from (checker.check(index) for index in range(len(source)))
        return
    chunks = [range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK)]
    # The tokenizers library starts threads of its own in each process.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(chunks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_process,
        initargs=(source, model, max_length, max_memory),
    )
    try:
        for checked in pool.map(_check_chunk, chunks):
            yield from checked
    except BrokenProcessPool as error:
        raise DataError(
            f"{source.name}: a process that checks records died, possibly because memory ran out; try fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _checker(source: Source, model: str | None, max_length: int, max_memory: int) -> RecordChecker:
    return RecordChecker(source, processor_of(model) if model is not None else None, max_length, max_memory)


def processor_of(model: str) -> SlimeProcessor:
    """Load the processor of a native checkpoint, without the weights of the model."""
    from slime_vlm.checkpoints.hub import resolve
    from slime_vlm.checkpoints.native import read_native

    config, processor = read_native(resolve(model))
    return processor.follow(config)


_checker_of_process: RecordChecker | None = None


def _start_process(source: Source, model: str | None, max_length: int, max_memory: int) -> None:
    global _checker_of_process
    _checker_of_process = _checker(source, model, max_length, max_memory)


def _check_chunk(indices: range) -> list[CheckedRecord]:
    assert _checker_of_process is not None
    return [_checker_of_process.check(index) for index in indices]
