"""Run a job, or resume it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slime_vlm.batch.folder import LOCK, JobFolder
from slime_vlm.batch.records import Asked, Listing, list_records, open_image_of, read_asked
from slime_vlm.checkpoints.hub import resolve
from slime_vlm.data import Source, open_source
from slime_vlm.errors import ConfigError, DataError, printable
from slime_vlm.evaluation.run_folder import fingerprint
from slime_vlm.training.run_lock import locked

if TYPE_CHECKING:
    from slime_vlm.media import OpenedInput
    from slime_vlm.serving.settings import Settings

# The past seconds from which the remaining time is estimated.
_ESTIMATE_SECONDS = 120.0


@dataclass(frozen=True)
class JobOptions:
    """What to run.

    Attributes:
        records: What `data.open_source` opens.
        out: Folder of the answers.
        model: `nano`, `pages`, a folder or a hub id.
        limits: Settings of the scheduler.
        open_image: Opens a file or an address.
        images: Folder or archive of the images. None takes the folder of the records.
        device: Device of the model.
        fast: See `load`.
        overrides: Fields of the model's config to change.
        settings: What else changes answers, by the name that a message uses. None is the default.
    """

    records: str
    out: Path
    model: str
    limits: Settings
    open_image: Callable[[str], OpenedInput]
    images: Path | None = None
    device: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    fast: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


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
        DataError: There are no records.
        CheckpointError: The model does not exist.
    """
    # All that can be wrong with the job is found before the model is loaded.
    source, weights = open_source(options.records, options.images), fingerprint(resolve(options.model))
    settings = {"the fingerprint of the model": weights, **options.settings}
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {options.out}: {error.strerror}; choose another folder") from None
    with locked(options.out / LOCK, lambda line: console.print(printable(line), markup=False, soft_wrap=True)):
        listing = list_records(source)
        folder = JobFolder(options.out, listing, settings)
        is_interrupted = False
        try:
            with _progress(console) as bar:
                _answer(options, source, listing, folder, bar)
            folder.finish()
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            folder.close()
    return JobResult(len(source), folder.num_answers, folder.num_errors, is_interrupted)


def _answer(options: JobOptions, source: Source, listing: Listing, folder: JobFolder, bar: Progress) -> None:
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
    from slime_vlm.batch.run import BatchRun
    from slime_vlm.checkpoints.loading import load

    loaded = load(
        options.model,
        options.device,
        options.dtype,
        quantization=options.quantization,
        fast=options.fast,
        **dict(options.overrides),
    )
    open_image = partial(open_image_of, root=source.images, open_image=options.open_image)
    run = BatchRun(*loaded, options.limits, open_image, on_answer, on_error)
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
