"""Run benchmarks: ask the questions of every task in batches, store each answer as it comes, score at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from slime_vlm.errors import ConfigError, DataError, SlimeError
from slime_vlm.evaluation.benchmarks import Question, Task
from slime_vlm.evaluation.folder_results import folder_results, known_settings
from slime_vlm.evaluation.generation import longest_answer
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
        tasks: The tasks.
        out: Folder of the run.
        data: Folder of local copies, see `records`.
        organisation: Hub organisation of most data sets.
        limit: Maximum number of questions per task, the first ones after `offset`.
        offset: Number of questions of each task to leave out at the start.
        predict_only: Whether to store answers without scoring them.
        generation: Arguments of `generate` that replace greedy decoding, and `max_new_tokens` for every task.
        batch_size: Questions per batch. None chooses by device and memory.
        device: Device of the model.
        dtype: Number type of its weights.
        fast: See `load`.
        overrides: Fields of the model's config to change.
        judge: Language model that grades what rules cannot.
        templates: Folder of prompts for the judge.
    """

    model: str
    tasks: Sequence[Task]
    out: Path
    data: Path | None = None
    organisation: str = ORGANISATION
    limit: int | None = None
    offset: int = 0
    predict_only: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    device: str | None = None
    dtype: str | None = None
    fast: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)
    judge: Judge | None = None
    templates: Path | None = None


def run_benchmarks(options: RunOptions, console: Console) -> list[TaskResult]:
    """Run tasks, or resume an interrupted run. Answered questions are not asked again.

    Args:
        options: What to run.
        console: Where to show progress.

    Returns:
        In the main process one result for every task of the folder, including those of earlier commands. In all other
        processes nothing, nor if nothing is to be scored.

    Raises:
        ConfigError: The folder holds another run.
        DataError: Records are missing, have another format or share an id, or an image cannot be opened.
        CheckpointError: The model does not exist.
    """
    processes = join_processes(options.device)
    # Load records before the model, which may take minutes.
    records = {
        task.name: load_records(task, options.data, options.organisation, options.limit, options.offset)
        for task in options.tasks
    }
    settings = _settings(options)
    if processes.is_main:
        origins = {
            task.name: {
                "benchmark": task.benchmark.name,
                "split": task.split,
                "records": records[task.name].origin,
                "max_new_tokens": _longest(task, options),
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
            for number in _answer(task, found.rows, found.folder, store, answerer, processes, options):
                bar.update(shown, advance=number)
        processes.wait()
        if processes.is_main:
            rows = store.merge()
            if not options.predict_only:
                results.append(score_task(task, rows, options.judge, options.templates, store.folder))
            _submit(task, rows, store.folder, options)
        processes.wait()
    if processes.is_main and not options.predict_only:
        limits = {**known_settings(options.out).get("limits", {}), **{r.task.name: options.limit for r in results}}
        results = folder_results(options.out, results)
        write_report(results, options.out, {**settings, "limits": limits})
    return results


def _longest(task: Task, options: RunOptions) -> int:
    return int(options.generation.get("max_new_tokens", task.benchmark.max_new_tokens))


def _settings(options: RunOptions) -> dict[str, Any]:
    from slime_vlm.checkpoints.hub import resolve

    # Runs of earlier versions were greedy and exact, and have no such fields.
    generation = {"generation": dict(options.generation)} if options.generation else {}
    fast = {"fast": True} if options.fast else {}
    return {
        **generation,
        **fast,
        "model": options.model,
        "fingerprint": fingerprint(resolve(options.model)),
        "dtype": options.dtype,
        "overrides": options.overrides,
    }


class _LazyAnswerer:
    """Load the model when the first question needs it. A finished run is reported again without loading it."""

    def __init__(self, options: RunOptions, processes: Processes) -> None:
        self._options, self._device = options, processes.device
        self._loaded: BatchAnswerer | None = None

    def __call__(self) -> BatchAnswerer:
        if self._loaded is None:
            from slime_vlm.checkpoints.loading import load
            from slime_vlm.inference.batching import BatchAnswerer

            options = self._options
            model, processor = load(
                options.model, self._device, options.dtype, fast=options.fast, packed=True, **options.overrides
            )
            self._loaded = BatchAnswerer(model, processor, options.batch_size)
        return self._loaded


def _answer(
    task: Task,
    rows: Iterable[dict[str, Any]],
    folder: Path | None,
    store: PredictionStore,
    answerer: _LazyAnswerer,
    processes: Processes,
    options: RunOptions,
) -> Iterator[int]:
    """Answer this process's share of the questions, and yield how many of all are done after each chunk."""
    done = store.done()
    for questions in _chunks(_questions(task, rows, options.offset), answerer, done, processes.count):
        mine = [(index, question) for index, question in questions if index % processes.count == processes.rank]
        for _, question in mine:
            if question.id in done and done[question.id].get("prompt") != question.prompt:
                raise ConfigError(
                    f"{task.name}: question {question.id} had another prompt when {store.folder} was made; "
                    "use another --out"
                )
        left = [(index, question) for index, question in mine if question.id not in done]
        if left:
            store.append(_ask(task, left, folder, answerer(), options))
        yield len(questions)


def _chunks(
    questions: Iterator[tuple[int, Question]], answerer: _LazyAnswerer, done: dict[str, Row], count: int
) -> Iterator[list[tuple[int, Question]]]:
    """Yield the questions in chunks of one batch per process."""
    while first := next(questions, None):
        # While questions are answered already, do not load the model just to know its batch size.
        size = 1
        if first[1].id not in done:
            # Cut batches by index, not by what is left, so that a resumed run forms the same batches.
            whole = answerer().batch_size * count
            size = whole - first[0] % whole
        yield [first, *islice(questions, size - 1)]


def _questions(task: Task, rows: Iterable[dict[str, Any]], offset: int = 0) -> Iterator[tuple[int, Question]]:
    seen: set[str] = set()
    for index, row in enumerate(rows, start=offset):
        try:
            question = task.benchmark.ask(row, index)
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{task.name}: record {index} is not in the format of {task.benchmark.source.repo} ({error!r})"
            ) from error
        if question.id in seen:
            raise DataError(f"{task.name}: two records have the id {question.id}; repair the data")
        seen.add(question.id)
        yield index, question


def _ask(
    task: Task,
    questions: Sequence[tuple[int, Question]],
    folder: Path | None,
    answerer: BatchAnswerer,
    options: RunOptions,
) -> list[Row]:
    opened = []
    for _, question in questions:
        try:
            opened.append([open_visual(image, folder) for image in question.images])
        except SlimeError as error:
            raise DataError(f"{task.name}: question {question.id}: {error}") from error
    prompts = [question.prompt for _, question in questions]
    sampling = {name: value for name, value in options.generation.items() if name != "max_new_tokens"}
    if sampling.get("do_sample"):
        import torch

        # A batch draws the same answers when a run is resumed, and other ones than the batch before it.
        torch.manual_seed(questions[0][0])
    longest = _longest(task, options)
    if "max_new_tokens" not in options.generation:
        longest = longest_answer(answerer.model.config, longest)
    answers = answerer.answer(prompts, opened, longest, **sampling)
    return [
        {
            "task": task.benchmark.name,
            "split": task.split,
            "place": index,
            "id": question.id,
            "prompt": question.prompt,
            "prediction": answer.text,
            "target": question.target,
            "score": None if options.predict_only else task.benchmark.score(answer.text, question.target),
            "tokens": answer.tokens,
            "seconds": round(answer.seconds, 4),
            "image_sizes": [[image.height, image.width] for image in images],
        }
        for (index, question), answer, images in zip(questions, answers, opened, strict=True)
    ]


def _submit(task: Task, rows: Sequence[Row], folder: Path, options: RunOptions) -> None:
    submission = task.benchmark.submission
    if submission is None or task.split != task.benchmark.source.test_split:
        return
    everything: Iterable[Question] = ()
    if submission.every and (options.limit is not None or options.offset):
        records = load_records(task, options.data, options.organisation)
        everything = (question for _, question in _questions(task, records.rows))
    write_submission(submission, rows, folder, everything)
