"""Checking all records of a source, in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from slime_vlm.data.check.findings import Finding
from slime_vlm.data.check.record_checks import Looked, RecordChecker
from slime_vlm.data.check.report import SourceReport
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError

if TYPE_CHECKING:
    from slime_vlm.processing.processing_slime import SlimeProcessor

# Enough that handing out work costs nothing, few enough that the bar moves.
_CHUNK = 32


def check_source(
    source: Source,
    model: str | None = None,
    max_length: int = 2048,
    workers: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> SourceReport:
    """Check every record of a source.

    Args:
        source: The records.
        model: The model whose tiles and tokens are counted, see `processor_of`; None: no tokens.
        max_length: More tokens than that are over-long.
        workers: Processes; 1 = this one.
        advance: Takes the number of records that were just done.

    Raises:
        CheckpointError: There is no such model.
        DataError: A process died.
    """
    report = SourceReport(source.name, len(source))
    seen: dict[str | int, tuple[int, bytes]] = {}
    for looked in _look_at_all(source, model, max_length, workers):
        if looked.id is not None:
            first = seen.setdefault(looked.id, (looked.index, looked.digest))
            if first[0] != looked.index:
                kind = "duplicate" if first[1] == looked.digest else "duplicate-id"
                message = f"record {first[0]} has the same id"
                looked.findings.append(Finding(looked.index, looked.id, kind, message))
        report.add(looked)
        advance(1)
    return report


def _look_at_all(source: Source, model: str | None, max_length: int, workers: int) -> Iterator[Looked]:
    if workers == 1:
        checker = _checker(source, model, max_length)
        yield from (checker.look(index) for index in range(len(source)))
        return
    chunks = [range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK)]
    # The tokenizers library starts threads of its own in each process.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(chunks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(source, model, max_length),
    )
    try:
        for looked in pool.map(_look, chunks):
            yield from looked
    except BrokenProcessPool as error:
        raise DataError(
            f"{source.name}: a process that checks records died, for want of memory perhaps; try fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _checker(source: Source, model: str | None, max_length: int) -> RecordChecker:
    return RecordChecker(source, processor_of(model) if model is not None else None, max_length)


def processor_of(model: str) -> SlimeProcessor:
    """The processor of a native checkpoint, without its weights."""
    from slime_vlm.checkpoints.hub import resolve
    from slime_vlm.checkpoints.native import read_native

    config, processor = read_native(resolve(model))
    return processor.follow(config)


_checker_of_process: RecordChecker | None = None


def _start(source: Source, model: str | None, max_length: int) -> None:
    global _checker_of_process
    _checker_of_process = _checker(source, model, max_length)


def _look(indices: range) -> list[Looked]:
    assert _checker_of_process is not None
    return [_checker_of_process.look(index) for index in indices]
