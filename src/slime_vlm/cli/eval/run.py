"""`slime eval run`, `score` and `tasks`: the paper's benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slime_vlm.cli.config_fields import parse_config_fields
from slime_vlm.cli.eval.options import Overrides, RunFolder
from slime_vlm.cli.model_options import Device, Dtype, Fast, Model
from slime_vlm.cli.terminal import quiet_transformers

if TYPE_CHECKING:
    from slime_vlm.evaluation.judge import Judge

_JUDGE = "Judge"

JudgeUrl = Annotated[
    str | None,
    typer.Option(
        "--judge-url",
        envvar="SLIME_JUDGE_URL",
        help="OpenAI-compatible address of a model that grades answers, for example `https://host/v1`. "
        "Without one, benchmarks are scored by rules alone.",
        rich_help_panel=_JUDGE,
    ),
]
JudgeModel = Annotated[
    str,
    typer.Option(
        "--judge-model", envvar="SLIME_JUDGE_MODEL", help="Name of the grading model there.", rich_help_panel=_JUDGE
    ),
]
JudgeKey = Annotated[
    str | None,
    typer.Option(
        "--judge-key",
        envvar="SLIME_JUDGE_KEY",
        help="API key. Prefer the variable SLIME_JUDGE_KEY: command lines are visible to other users.",
        show_envvar=False,
        rich_help_panel=_JUDGE,
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        "--rule",
        help="Score by another published rule where a benchmark has one: `lmms-eval`, `LLaVA`, `slime-script`.",
        show_default="each benchmark's own",
    ),
]
JudgePrompts = Annotated[
    Path | None,
    typer.Option(
        "--judge-prompts",
        help="Folder of grading prompts, named `mm_vet.txt` and so on, to use instead of the built-in ones.",
        rich_help_panel=_JUDGE,
    ),
]


def run(
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            help="Benchmarks, separated by commas, each with an optional split: `textvqa,docvqa:test`. "
            "`slime eval tasks` lists them.",
        ),
    ],
    out: RunFolder,
    model: Model = "nano",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of local copies, `TASK/SPLIT.parquet` and so on.",
            show_default="download from the hub",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Ask only this many questions of each task, the first ones.", show_default="all"
        ),
    ] = None,
    offset: Annotated[
        int,
        typer.Option("--offset", min=0, help="Leave out this many questions at the start of each task."),
    ] = 0,
    predict_only: Annotated[
        bool,
        typer.Option("--predict-only", help="Store the answers without scoring them. `slime eval score` does that."),
    ] = False,
    gen: Annotated[
        list[str] | None,
        typer.Option(
            "--gen",
            metavar="NAME=VALUE",
            help="Change how answers are generated: `max_new_tokens=512`, `num_beams=3`, or `temperature=0.2`, "
            "which samples. Repeatable.",
            show_default="greedy, lengths of each task",
        ),
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option(
            "--batch-size",
            help="Number of questions per batch. `auto` goes by device and free memory. "
            "A batch that does not fit is halved.",
        ),
    ] = "auto",
    organisation: Annotated[
        str,
        typer.Option("--organisation", help="Hub organisation of most data sets. `lmms-lab` has older copies."),
    ] = "lmms-lab-encoder",
    hub_id: Annotated[
        list[str] | None,
        typer.Option("--hub-id", metavar="TASK=ID", help="Take a task's data from another hub data set. Repeatable."),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    fast: Fast = False,
    override: Overrides = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = "",
    judge_key: JudgeKey = None,
    judge_prompts: JudgePrompts = None,
) -> None:
    """Measure a model on benchmarks.

    Writes predictions, results.md, results.json and plots to `--out`. Run the same command again to resume after
    an interruption; answered questions are not asked again. On several GPUs, start it with
    `accelerate launch --module slime_vlm eval run …`.

    Example: `slime eval run --model slime-8b --tasks textvqa,pope --out runs/eval`
    """
    from rich.console import Console

    from slime_vlm.evaluation.benchmarks import find_tasks
    from slime_vlm.evaluation.generation import parse_generation

    found = find_tasks(tasks, _hub_ids(hub_id or []))
    rows, overrides = _batch_size(batch_size), parse_config_fields(override or [], "selector_top_p=0.5")
    judge, generation = _judge(judge_url, judge_model, judge_key), parse_generation(gen or [])
    # Imports torch. A mistyped option is reported before that.
    from slime_vlm.evaluation.report import table
    from slime_vlm.evaluation.runner import RunOptions, run_benchmarks

    options = RunOptions(
        model=model,
        tasks=found,
        out=out,
        data=data,
        organisation=organisation,
        limit=limit,
        offset=offset,
        predict_only=predict_only,
        generation=generation,
        batch_size=rows,
        device=device,
        dtype=dtype,
        fast=fast,
        overrides=overrides,
        judge=judge,
        templates=judge_prompts,
    )
    quiet_transformers()
    results = run_benchmarks(options, Console(stderr=True))
    if predict_only:
        typer.echo(f"predictions: {out}; `slime eval score {out} --out {out}` scores them")
    if results:
        typer.echo(f"{table(results)}\n\nreport: {out / 'results.md'}; numbers and plots are beside it")
    if results or predict_only:
        for file in sorted(out.glob("*/submission.*")):
            typer.echo(f"{file} is for the server that scores it")


def score(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="PREDICTIONS", help="Files of predictions, or folders of runs.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write results and plots to this folder.")] = None,
    rule: Rule = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = "",
    judge_key: JudgeKey = None,
    judge_prompts: JudgePrompts = None,
) -> None:
    """Score the predictions of `slime eval run` again, without a model.

    Example: `slime eval score runs/eval`
    """
    from slime_vlm.evaluation.folder_results import folder_results, known_settings
    from slime_vlm.evaluation.report import details, table, write_report
    from slime_vlm.evaluation.scoring import score_files

    results = score_files(predictions, _judge(judge_url, judge_model, judge_key), judge_prompts, rule)
    typer.echo(f"{table(results)}\n\n{details(results)}")
    if out is not None:
        write_report(folder_results(out, results), out, known_settings(out))


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a run, or a file of predictions.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, with predictions for the same tasks.")],
    rule: Rule = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare two runs on the questions that both answered.

    Prints the share of right answers of each, their difference, and 95% intervals by a paired bootstrap. McNemar's p is
    how likely so uneven a split is by chance.

    Example: `slime eval compare runs/before runs/after`
    """
    import json

    from slime_vlm.evaluation.comparison import compare_runs, comparison_table, described

    found = compare_runs(first, second, rule, report=lambda line: typer.echo(line, err=True))
    typer.echo(json.dumps(described(found), indent=1) if as_json else comparison_table(found))


def tasks() -> None:
    """List the benchmarks with source, split, metric and licence, as a Markdown table.

    Example: `slime eval tasks`
    """
    from slime_vlm.evaluation.benchmarks import task_table

    typer.echo(task_table())


def _batch_size(text: str) -> int | None:
    from slime_vlm.errors import ConfigError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--batch-size {text}: expected a whole number of at least 1, or auto")
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
