"""Run an ablation: ask every question of every image under every setting, and store each answer as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from slime_vlm.errors import MediaError
from slime_vlm.evaluation.ablation.report import write_report
from slime_vlm.evaluation.ablation.samples import Sample, record_samples, rendered_pages, row_id
from slime_vlm.evaluation.ablation.settings import REFERENCE, SETTINGS, Setting, applicable
from slime_vlm.evaluation.predictions import PredictionStore, Row
from slime_vlm.evaluation.processes import Processes, join_processes
from slime_vlm.evaluation.progress import progress_bar
from slime_vlm.evaluation.run_folder import claim, fingerprint
from slime_vlm.pages import PageSettings

if TYPE_CHECKING:
    from slime_vlm.evaluation.ablation.answers import AblationAnswerer
    from slime_vlm.evaluation.ocr_baseline.reader import OcrReader

# Factors of the `place` of a row: rows are ordered by sample, then setting, then question.
_MOST_SETTINGS, _MOST_QUESTIONS = 1000, 1000

NO_QUERIES = (
    "queries per tile: their number is part of a model's weights, so it cannot be varied without training; to compare "
    "numbers, run the ablation on one model for each"
)


@dataclass(frozen=True)
class AblationOptions:
    """What to run.

    Attributes:
        model: `nano`, a folder or a hub id.
        out: Folder of the run.
        settings: The settings to compare.
        limit: Number of pages per seed, or of records. None takes all records.
        seeds: Number of sets of rendered pages.
        tiles: Number of tiles of a rendered page.
        split: Split of the rendered pages.
        records: Records with images to ask about instead of rendered pages.
        device: Device of the model.
        dtype: Number type of its weights.
        fast: See `load`.
        overrides: Fields of the model's config to change in all settings.
        ocr_wanted: Whether the OCR baseline was requested by name, so that a missing package is an error.
    """

    model: str
    out: Path
    settings: Sequence[Setting]
    limit: int | None = 10
    seeds: int = 3
    tiles: int = 6
    split: str = "heldout"
    records: Path | None = None
    device: str | None = None
    dtype: str | None = None
    fast: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)
    ocr_wanted: bool = False


def run_ablation(options: AblationOptions, console: Console) -> str:
    """Run an ablation, or resume an interrupted one. Answered questions are not asked again.

    Args:
        options: What to run.
        console: Where to show progress.

    Returns:
        The report as Markdown in the main process, "" in the others.

    Raises:
        ConfigError: The folder holds another run, or the settings of the pages do not fit the model.
        DataError: Records cannot be used.
        MediaError: The OCR baseline is asked for by name and not installed.
        CheckpointError: There is no such model.
    """
    from slime_vlm.checkpoints.loading import load

    processes = join_processes(options.device)
    described = _described(options)
    if processes.is_main:
        claim(options.out, described, {})
    processes.wait()
    store = PredictionStore(options.out, processes.rank)
    model, processor = load(
        options.model, processes.device, options.dtype, fast=options.fast, packed=True, **options.overrides
    )
    settings, notes = applicable(options.settings, model.config, rendered=options.records is None)
    reader, missing = _reader(settings, options)
    if missing:
        settings, notes = [setting for setting in settings if not setting.ocr], [*notes, missing]

    from slime_vlm.evaluation.ablation.answers import AblationAnswerer

    answerer = AblationAnswerer(model, processor, reader)
    samples, number = _samples(options, processor.image_processor.view_size, processor.image_processor.max_tiles)
    _answer_all(samples, number, settings, answerer, store, processes, console)
    processes.wait()
    if not processes.is_main:
        return ""
    rows = store.merge()
    origin = {**described, "limit": options.limit, "device": str(model.device), "dtype": str(model.dtype)}
    return write_report(rows, options.out, origin, [*notes, NO_QUERIES])


def _answer_all(
    samples: Iterable[Sample],
    number: int,
    settings: Sequence[Setting],
    answerer: AblationAnswerer,
    store: PredictionStore,
    processes: Processes,
    console: Console,
) -> None:
    done = store.done()
    # Settings differ in speed. A long period makes the estimate span several of them.
    with progress_bar(console, processes, estimate_seconds=600) as bar:
        # One step is one image under one setting. A resumed run skips single settings of an image.
        shown = bar.add_task("ablation", total=number * len(settings))
        for index, sample in enumerate(samples):
            if index % processes.count != processes.rank:
                bar.update(shown, advance=len(settings))
                continue
            for setting in settings:
                ids = [row_id(sample, setting.name, i) for i in range(len(sample.questions))]
                if not all(name in done for name in ids):
                    kept = [_kept(done, row_id(sample, REFERENCE, i)) for i in range(len(ids))]
                    rows = answerer.answer(sample, setting, kept)
                    for i, row in enumerate(rows):
                        row["place"] = (index * _MOST_SETTINGS + SETTINGS.index(setting)) * _MOST_QUESTIONS + i
                    store.append(rows)
                    done.update({str(row["id"]): row for row in rows})
                bar.update(shown, advance=1)


def _kept(done: dict[str, Row], name: str) -> int:
    return int(done[name]["tokens"]["kept"]) if name in done else 0


def _samples(options: AblationOptions, view_size: int, max_tiles: int) -> tuple[Iterable[Sample], int]:
    if options.records is not None:
        found = record_samples(options.records, options.limit)
        return found, len(found)
    limit = options.limit or 1
    return rendered_pages(page_settings(options, view_size, max_tiles), options.seeds, limit), limit * options.seeds


def page_settings(options: AblationOptions, view_size: int, max_tiles: int) -> PageSettings:
    """Return the settings of the rendered pages: those of `slime eval pages`, scaled to the views of a model.

    Raises:
        ConfigError: The model takes fewer tiles.
    """
    scale = view_size / 256
    return PageSettings(
        tiles=(options.tiles, options.tiles),
        text_px=(22 * scale, 34 * scale),
        page_scale=(0.8, 1.3),
        view_size=view_size,
        max_tiles=max_tiles,
        split=options.split,
        questions=4,
    )


def _reader(settings: Sequence[Setting], options: AblationOptions) -> tuple[OcrReader | None, str]:
    """Return the OCR engine of the baseline, or None and the reason why it is missing."""
    import torch

    from slime_vlm.evaluation.ocr_baseline.reader import OcrReader

    if not any(setting.ocr for setting in settings):
        return None, ""
    try:
        # As many threads as the model uses, so that seconds are comparable.
        return OcrReader(torch.get_num_threads()), ""
    except MediaError as error:
        if options.ocr_wanted:
            raise
        return None, str(error)


def _described(options: AblationOptions) -> dict[str, Any]:
    from slime_vlm.checkpoints.hub import resolve

    return {
        # The key of run folders from before November 2026, when the command was `slime eval suite pages`.
        "suite": "pages",
        "model": options.model,
        "fingerprint": fingerprint(resolve(options.model)),
        "dtype_asked": options.dtype,
        # Runs of earlier versions have no such field.
        **({"fast": True} if options.fast else {}),
        "overrides": options.overrides,
        "records": None if options.records is None else str(options.records),
        "tiles": options.tiles,
        "split": options.split,
    }
