"""Assemble the commands of `slime eval`."""

from __future__ import annotations

import typer

from slime_vlm.cli.eval.ablation import ablation
from slime_vlm.cli.eval.pages import pages, reading
from slime_vlm.cli.eval.run import compare, run, score, tasks

app = typer.Typer(
    no_args_is_help=True,
    help="Measure a model on benchmarks, rendered pages or your own images.\n\n"
    "Example: `slime eval run --model nano --tasks docvqa --limit 20 --out runs/docvqa`",
)
app.command(no_args_is_help=True)(run)
app.command(no_args_is_help=True)(score)
app.command(no_args_is_help=True)(compare)
app.command()(tasks)
app.command(no_args_is_help=True)(ablation)
app.command()(pages)
app.command()(reading)
