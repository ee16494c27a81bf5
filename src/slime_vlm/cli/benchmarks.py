"""`slime eval run`, `score` and `tasks`: the paper's benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slime_vlm.cli.measured_model import Device, Dtype, Model, Overrides, RunFolder, parse_overrides
from slime_vlm.cli.terminal import quiet_transformers

if TYPE_CHECKING:
    from slime_vlm.evaluation.judge import Judge

Data = Annotated[Path | None, typer.Option("--data", help="Folder of local copies, DATA/TASK/SPLIT.parquet and so on.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many questions of each task.")]
BatchSize = Annotated[str, typer.Option("--batch-size", help="Questions at once; halved when the memory is full.")]
JudgeUrl = Annotated[
    str | None,
    typer.Option("--judge-url", envvar="SLIME_JUDGE_URL", help="An OpenAI-compatible address, https://host/v1."),
]
JudgeModel = Annotated[str, typer.Option("--judge-model", envvar="SLIME_JUDGE_MODEL", help="The model that grades.")]
JudgeKey = Annotated[
    str | None,
    typer.Option(
        "--judge-key", envvar="SLIME_JUDGE_KEY", help="Its key; better in SLIME_JUDGE_KEY.", show_envvar=False
    ),
]
JudgePrompts = Annotated[
    Path | None, typer.Option("--judge-prompts", help="Folder of prompts, mm_vet.txt and so on, in place of ours.")
]


def run(
    tasks: Annotated[str, typer.Option("--tasks", help="Names, such as textvqa,pope,docvqa:test; see `tasks`.")],
    out: RunFolder,
    model: Model = "nano",
    data: Data = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    organisation: Annotated[
        str, typer.Option("--organisation", help="Hub organisation of most data sets; an older one is lmms-lab.")
    ] = "lmms-lab-encoder",
    hub_id: Annotated[
        list[str] | None,
        typer.Option("--hub-id", metavar="TASK=ID", help="Another copy of a task's data on the hub; repeatable."),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    override: Overrides = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = "",
    judge_key: JudgeKey = None,
    judge_prompts: JudgePrompts = None,
) -> None:
    """Ask a model the questions of benchmarks; interrupted, the same command goes on where it stopped.

    Example: slime eval run --model slime-8b --tasks textvqa,pope --data benchmarks --out runs/eval

    Several GPUs: accelerate launch --module slime_vlm_command eval run …
    """
    from rich.console import Console

    from slime_vlm.evaluation.benchmarks import find_tasks

    found = find_tasks(tasks, _hub_ids(hub_id or []))
    rows, overrides = _batch_size(batch_size), parse_overrides(override or [])
    judge = _judge(judge_url, judge_model, judge_key)
    # Imports torch, which a slip of the pen need not wait for.
    from slime_vlm.evaluation.report import table
    from slime_vlm.evaluation.runner import RunOptions, run_benchmarks

    options = RunOptions(
        model=model,
        tasks=found,
        out=out,
        data=data,
        organisation=organisation,
        limit=limit,
        batch_size=rows,
        device=device,
        dtype=dtype,
        overrides=overrides,
        judge=judge,
        templates=judge_prompts,
    )
    quiet_transformers()
    results = run_benchmarks(options, Console(stderr=True))
    if results:
        typer.echo(f"{table(results)}\n\n{out / 'results.md'} has all numbers, beside it are results.json and plots")
        for file in sorted(out.glob("*/submission.*")):
            typer.echo(f"{file} is for the server that scores it")


def score(
    predictions: Annotated[list[Path], typer.Argument(help="Files of predictions, or folders of runs.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write results and plots to this folder.")] = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = "",
    judge_key: JudgeKey = None,
    judge_prompts: JudgePrompts = None,
) -> None:
    """Score predictions again, without a model.

    Example: slime eval score runs/eval
    """
    from slime_vlm.evaluation.folder_results import folder_results, known_settings
    from slime_vlm.evaluation.report import details, table, write_report
    from slime_vlm.evaluation.scoring import score_files

    results = score_files(predictions, _judge(judge_url, judge_model, judge_key), judge_prompts)
    typer.echo(f"{table(results)}\n\n{details(results)}")
    if out is not None:
        write_report(folder_results(out, results), out, known_settings(out))


def tasks() -> None:
    """List the benchmarks: source, split, metric and licence.

    Example: slime eval tasks
    """
    from slime_vlm.evaluation.benchmarks import task_table

    typer.echo(task_table())


def _batch_size(text: str) -> int | None:
    from slime_vlm.errors import ConfigError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--batch-size {text}: expected a whole number from 1 on, or auto")
    return int(text)


def _hub_ids(assignments: list[str]) -> dict[str, str]:
    from slime_vlm.errors import ConfigError

    pairs = [text.partition("=") for text in assignments]
    for name, _, value in pairs:
        if not name or value.count("/") != 1:
            raise ConfigError(f"--hub-id {name}={value}: expected TASK=OWNER/NAME, such as pope=me/pope-copy")
    return {name: value for name, _, value in pairs}


def _judge(url: str | None, model: str, key: str | None) -> Judge | None:
    from slime_vlm.evaluation.judge import Judge

    return Judge(url, model, key) if url else None
