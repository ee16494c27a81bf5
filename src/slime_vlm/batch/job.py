"""Run a job, or resume it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slime_vlm.batch.folder import LOCK, JobFolder
from slime_vlm.batch.options import JobOptions
from slime_vlm.batch.records import Asked, Listing, list_records, read_asked
from slime_vlm.checkpoints.hub import resolve
from slime_vlm.data import Source, open_source
from slime_vlm.errors import ConfigError, DataError, printable
from slime_vlm.evaluation.run_folder import fingerprint
from slime_vlm.extras import import_extra
from slime_vlm.training.run_lock import locked

if TYPE_CHECKING:
    from slime_vlm.batch.ray_run import RayRun
    from slime_vlm.batch.run import BatchRun

# The past seconds from which the remaining time is estimated.
_ESTIMATE_SECONDS = 120.0


@dataclass(frozen=True)
class JobResult:
    """How a job ended: numbers of records, answers and errors, and whether it was interrupted."""

    num_records: int
    num_answers: int
    num_errors: int
    is_interrupted: bool


def run_job(options: JobOptions, console: Console) -> JobResult:
    """Answer the records that have no answer yet.

    Args:
        options: What to run.
        console: Where to show progress.

    Raises:
        ConfigError: The folder has the answers of another job, another process is at work on it, or the model cannot
            be run.
        MediaError: The job is for Ray, which is not installed.
        DataError: There are no records.
        CheckpointError: The model does not exist.
    """
    # All that can be wrong with the job is found before the model is loaded.
    if options.ray is not None:
        import_extra("ray", "--ray", "many machines need Ray", "ray")
    source, weights = open_source(options.records, options.images), fingerprint(resolve(options.model))
    settings = {"the fingerprint of the model": weights, **options.settings}
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {options.out}: {error.strerror}; choose another folder") from None

    def report(line: str) -> None:
        console.print(printable(line), markup=False, soft_wrap=True)

    with locked(options.out / LOCK, report):
        listing = list_records(source)
        folder = JobFolder(options.out, listing, settings)
        is_interrupted = False
        try:
            with _progress(console) as bar:
                _answer(options, source, listing, folder, bar, weights, report)
            folder.finish()
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            folder.close()
    return JobResult(len(source), folder.num_answers, folder.num_errors, is_interrupted)


def _answer(
    options: JobOptions,
    source: Source,
    listing: Listing,
    folder: JobFolder,
    bar: Progress,
    weights: str,
    report: Callable[[str], None],
) -> None:
    """Answer the records that have no answer yet, and show it."""
    task = bar.add_task("answering", total=len(source), completed=folder.num_answers, errors="")

    def on_answer(index: int, fields: dict[str, Any]) -> None:
        folder.add_answer(index, fields)
        bar.advance(task)

    def on_error(index: int, message: str) -> None:
        folder.add_error(index, message)
        bar.update(task, advance=1, errors=f"{folder.num_errors:,} cannot be answered")

    left = [index for index in range(len(source)) if not folder.has(index)]
    if not left:
        return
    run: BatchRun | RayRun
    if options.ray is None:
        from slime_vlm.batch.run import load_run

        run = load_run(options, source.images, on_answer, on_error)
    else:
        from slime_vlm.batch.ray_run import RayRun

        run = RayRun(options, source.images, weights, on_answer, on_error, report)
    run.run(left, lambda index: _read(source, listing, index))


def _read(source: Source, listing: Listing, index: int) -> Asked:
    """Read a record, which must be the first one with its id: an answer is known by it."""
    first = listing.index_of[listing.keys[index]]
    if first != index:
        raise DataError(f"record {first} has the same id; give each record an id of its own")
    return read_asked(source, index)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[errors]}"),
        console=console,
        transient=True,
        speed_estimate_period=_ESTIMATE_SECONDS,
        disable=not console.is_terminal,
    )
