"""A run: every task's questions asked in batches, kept as they are answered, and scored at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from slime_vlm.errors import ConfigError, DataError, SlimeError
from slime_vlm.evaluation.benchmarks import Question, Task
from slime_vlm.evaluation.folder_results import folder_results, known_settings
from slime_vlm.evaluation.images import open_visual
from slime_vlm.evaluation.judge import Judge
from slime_vlm.evaluation.predictions import PredictionStore, Row
from slime_vlm.evaluation.processes import Processes, join_processes
from slime_vlm.evaluation.progress import progress_bar
from slime_vlm.evaluation.records import ORGANISATION, load_records
from slime_vlm.evaluation.report import write_report
from slime_vlm.evaluation.run_folder import claim, fingerprint
from slime_vlm.evaluation.scoring import TaskResult, score_task
from slime_vlm.evaluation.submission import write_submission

if TYPE_CHECKING:
    from slime_vlm.inference.batching import BatchAnswerer


@dataclass(frozen=True)
class RunOptions:
    """What to run.

    Attributes:
        model: `nano`, a folder or a hub id.
        tasks: the tasks.
        out: folder of the run.
        data: folder of local copies; see `records`.
        organisation: hub organisation of most data sets.
        limit: only the first so many questions of each task.
        batch_size: rows at once; None decides by the machine.
        device: where the model belongs.
        dtype: type of its weights.
        overrides: fields of the model's config to change.
        judge: who grades what only a language model can.
        templates: folder of prompts for the judge.
    """

    model: str
    tasks: Sequence[Task]
    out: Path
    data: Path | None = None
    organisation: str = ORGANISATION
    limit: int | None = None
    batch_size: int | None = None
    device: str | None = None
    dtype: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    judge: Judge | None = None
    templates: Path | None = None


def run_benchmarks(options: RunOptions, console: Console) -> list[TaskResult]:
    """Run tasks, or go on with a run that was interrupted; nothing is computed twice.

    Args:
        options: what to run.
        console: where progress is shown.

    Returns:
        One result a task of the folder, those of earlier commands among them, from the main process; none from others.

    Raises:
        ConfigError: the folder holds another run, or two questions have one id.
        DataError: records are missing or of another format, or an image cannot be opened.
        CheckpointError: there is no such model.
    """
    processes = join_processes(options.device)
    # Before the model, which may take minutes.
    records = {
        task.name: load_records(task, options.data, options.organisation, options.limit) for task in options.tasks
    }
    settings = _settings(options)
    if processes.is_main:
        origins = {
            task.name: {
                "benchmark": task.benchmark.name,
                "split": task.split,
                "records": records[task.name].origin,
                "max_new_tokens": task.benchmark.max_new_tokens,
            }
            for task in options.tasks
        }
        claim(options.out, settings, origins)
    processes.wait()
    answerer = _LazyAnswerer(options, processes)
    results = []
    for task in options.tasks:
        store = PredictionStore(options.out / task.name, processes.rank)
        found = records[task.name]
        with progress_bar(console, processes) as bar:
            shown = bar.add_task(task.name, total=found.length)
            for number in _answer(task, found.rows, found.folder, store, answerer, processes):
                bar.update(shown, advance=number)
        processes.wait()
        if processes.is_main:
            rows = store.merge()
            results.append(score_task(task, rows, options.judge, options.templates, store.folder))
            _submit(task, rows, store.folder, options)
        processes.wait()
    if processes.is_main:
        limits = {**known_settings(options.out).get("limits", {}), **{r.task.name: options.limit for r in results}}
        results = folder_results(options.out, results)
        write_report(results, options.out, {**settings, "limits": limits})
    return results


def _settings(options: RunOptions) -> dict[str, Any]:
    from slime_vlm.checkpoints.hub import resolve

    return {
        "model": options.model,
        "fingerprint": fingerprint(resolve(options.model)),
        "dtype": options.dtype,
        "overrides": options.overrides,
    }


class _LazyAnswerer:
    """Loads the model when the first question needs it: a finished run is reported again without it."""

    def __init__(self, options: RunOptions, processes: Processes) -> None:
        self._options, self._device = options, processes.device
        self._loaded: BatchAnswerer | None = None

    def __call__(self) -> BatchAnswerer:
        if self._loaded is None:
            from slime_vlm.checkpoints.loading import load
            from slime_vlm.inference.batching import BatchAnswerer

            options = self._options
            model, processor = load(options.model, self._device, options.dtype, **options.overrides)
            self._loaded = BatchAnswerer(model, processor, options.batch_size)
        return self._loaded


def _answer(
    task: Task,
    rows: Iterable[dict[str, Any]],
    folder: Path | None,
    store: PredictionStore,
    answerer: _LazyAnswerer,
    processes: Processes,
) -> Iterator[int]:
    """Answer this process's share; gives numbers of questions as they are done, others' shares among them."""
    done = store.done()
    for questions in _chunks(_questions(task, rows), answerer, done, processes.count):
        mine = [(place, question) for place, question in questions if place % processes.count == processes.rank]
        for _, question in mine:
            if question.id in done and done[question.id].get("prompt") != question.prompt:
                raise ConfigError(
                    f"{task.name}: question {question.id} had another prompt when {store.folder} was made; "
                    "use another --out"
                )
        left = [(place, question) for place, question in mine if question.id not in done]
        if left:
            store.append(_ask(task, left, folder, answerer()))
        yield len(questions)


def _chunks(
    questions: Iterator[tuple[int, Question]], answerer: _LazyAnswerer, done: dict[str, Row], count: int
) -> Iterator[list[tuple[int, Question]]]:
    """Cut the questions into pieces of one batch a process."""
    while first := next(questions, None):
        # As long as all is done there is no need to know the size of batches, nor to load the model for it.
        size = 1
        if first[1].id not in done:
            # Batches are cut by place and not by what is left, so that a resumed run asks in the same company.
            whole = answerer().batch_size * count
            size = whole - first[0] % whole
        yield [first, *islice(questions, size - 1)]


def _questions(task: Task, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[int, Question]]:
    seen: set[str] = set()
    for place, row in enumerate(rows):
        try:
            question = task.benchmark.ask(row, place)
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{task.name}: record {place} is not in the format of {task.benchmark.source.repo} ({error!r})"
            ) from error
        if question.id in seen:
            raise DataError(f"{task.name}: two records have the id {question.id}; mend the data")
        seen.add(question.id)
        yield place, question


def _ask(
    task: Task, questions: Sequence[tuple[int, Question]], folder: Path | None, answerer: BatchAnswerer
) -> list[Row]:
    opened = []
    for _, question in questions:
        try:
            opened.append([open_visual(image, folder) for image in question.images])
        except SlimeError as error:
            raise DataError(f"{task.name}: question {question.id}: {error}") from error
    prompts = [question.prompt for _, question in questions]
    given = answerer.answer(prompts, opened, task.benchmark.max_new_tokens)
    return [
        {
            "task": task.benchmark.name,
            "split": task.split,
            "place": place,
            "id": question.id,
            "prompt": question.prompt,
            "prediction": answer.text,
            "target": question.target,
            "score": task.benchmark.score(answer.text, question.target),
            "tokens": answer.tokens,
            "seconds": round(answer.seconds, 4),
            "image_sizes": [[image.height, image.width] for image in images],
        }
        for (place, question), answer, images in zip(questions, given, opened, strict=True)
    ]


def _submit(task: Task, rows: Sequence[Row], folder: Path, options: RunOptions) -> None:
    submission = task.benchmark.submission
    if submission is None or task.split != task.benchmark.source.test_split:
        return
    everything: Iterable[Question] = ()
    if submission.every and options.limit is not None:
        records = load_records(task, options.data, options.organisation)
        everything = (question for _, question in _questions(task, records.rows))
    write_submission(submission, rows, folder, everything)
