"""The command's root: its subcommands, its version, and how failures reach the terminal."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer

from slime_vlm.cli.ask import ask
from slime_vlm.cli.chat import chat
from slime_vlm.cli.convert import convert
from slime_vlm.cli.data import app as data
from slime_vlm.cli.doctor import doctor
from slime_vlm.cli.eval import app as evaluate
from slime_vlm.cli.info import info
from slime_vlm.cli.merge import merge
from slime_vlm.cli.new import new
from slime_vlm.cli.pages import pages
from slime_vlm.cli.train import train

app = typer.Typer(
    name="slime",
    help="Ask questions about high-resolution images, and train, convert and look into SliME models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(no_args_is_help=True)(ask)
app.command(no_args_is_help=True)(chat)
app.command(no_args_is_help=True)(info)
app.command()(doctor)
app.command(no_args_is_help=True)(train)
app.command(no_args_is_help=True)(pages)
app.command(no_args_is_help=True)(convert)
app.command(no_args_is_help=True)(merge)
app.command(no_args_is_help=True)(new)
app.add_typer(data, name="data")
app.add_typer(evaluate, name="eval")

# All wrong usage is of its base class, which has no public name.
_UsageError: Any = typer.BadParameter.__base__

# Distributions of the optional extras by the module they bring, to turn a failed import into advice.
_EXTRA_OF_MODULE = {
    "accelerate": "train",
    "gguf": "gguf",
    "peft": "train",
    "tensorboard": "train",
    "yaml": "train",
    "matplotlib": "eval",
    "pyarrow": "data",
    "datasets": "data",
    "rapidfuzz": "eval",
    "openpyxl": "eval",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        from slime_vlm import __version__

        typer.echo(f"slime-vlm {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="SLIME_DEBUG", help="Show the whole traceback when something fails.")
    ] = False,
) -> None:
    if debug:
        os.environ["SLIME_DEBUG"] = "1"


def main() -> None:
    """Runs the command line; an expected failure is one line on standard error.

    Exit codes: 0 done, 2 bad input (a `SlimeError` or wrong usage), 130 interrupted, 1 anything else.
    """
    try:
        # Typer would print its own errors as boxes of several lines.
        sys.exit(app(prog_name="slime", standalone_mode=False))
    except Exception as error:
        if os.environ.get("SLIME_DEBUG", "0") not in {"", "0"}:
            raise
        described = _describe(error)
        if described is None:
            raise
        message, code = described
        if not message:
            sys.exit(code)
        # Typer's own echo, so that a closed standard error is no second failure.
        typer.echo(f"slime: {message}", err=True)
        sys.exit(code)


def _describe(error: Exception) -> tuple[str, int] | None:
    """Gives the line and the exit code of a foreseeable failure, None for a defect that deserves its traceback."""
    from slime_vlm.errors import SlimeError

    if isinstance(error, _UsageError):
        # Empty where a command without arguments has printed its help instead.
        message = " ".join(error.format_message().split()).rstrip(".")
        command = error.ctx.command_path if error.ctx else "slime"
        return message and f"{message}; see {command} --help", error.exit_code
    if isinstance(error, SlimeError):
        return " ".join(str(error).split()), 2
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in _EXTRA_OF_MODULE:
        extra = _EXTRA_OF_MODULE[(error.name or "").split(".")[0]]
        return f'{error.name} is not installed, this command needs it: pip install "slime-vlm[{extra}]"', 2
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        if error.errno == errno.ENOSPC:
            return f"the disk is full{where}; free some space and run the same command again", 1
        return f"{error.strerror}{where}", 1
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; fewer --max-local-tokens, a smaller --dtype or another --device may fit", 1
    return None
