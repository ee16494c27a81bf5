"""Assemble the command `slime`, and turn expected failures into one line on standard error."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer

from slime_vlm.cli.ask import ask
from slime_vlm.cli.batch import batch
from slime_vlm.cli.chat import chat
from slime_vlm.cli.convert import convert
from slime_vlm.cli.data import app as data
from slime_vlm.cli.doctor import doctor
from slime_vlm.cli.eval import app as evaluate
from slime_vlm.cli.info import info
from slime_vlm.cli.merge import merge
from slime_vlm.cli.new import new
from slime_vlm.cli.pages import pages
from slime_vlm.cli.recipes import app as recipes
from slime_vlm.cli.serve import serve
from slime_vlm.cli.train import train
from slime_vlm.errors import SlimeError, printable
from slime_vlm.quiet import quiet_bitsandbytes

app = typer.Typer(
    name="slime",
    help="Ask questions about high-resolution images; train, convert, inspect and measure SliME models.\n\n"
    'Example: `slime ask invoice.png -q "What is the total?"`',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
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
app.command()(serve)
app.command(no_args_is_help=True)(batch)
app.add_typer(data, name="data")
app.add_typer(evaluate, name="eval")
app.add_typer(recipes, name="recipes")

# The base class of every usage error; it has no public name.
_UsageError: Any = typer.BadParameter.__base__

# What torch and its libraries (allocator, oneDNN, cuBLAS) write in a RuntimeError where memory is lacking.
_LACKING_MEMORY = (
    "can't allocate memory",
    "std::bad_alloc",
    "could not create a primitive",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "out of memory",
)

# The extra that brings each optional module, to turn a failed import into advice.
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
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "pydantic_settings": "serve",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        from slime_vlm import __version__

        typer.echo(f"slime-vlm {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="SLIME_DEBUG", help="Show the full traceback of an error.")
    ] = False,
) -> None:
    if debug:
        os.environ["SLIME_DEBUG"] = "1"


def main() -> None:
    """Run the command line. An expected failure prints one line on standard error.

    Exit codes: 0 success, 2 bad input (a `SlimeError` or wrong usage), 130 interrupted, 1 any other failure.
    """
    quiet_bitsandbytes()
    try:
        # In standalone mode, typer prints its own errors as boxes of several lines.
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
        # Typer's echo does not fail when standard error is closed.
        typer.echo(f"slime: {printable(message)}", err=True)
        sys.exit(code)


def _describe(error: Exception) -> tuple[str, int] | None:
    """Return the line and the exit code of an expected failure, or None for a defect that deserves its traceback."""
    if isinstance(error, _UsageError):
        # Empty when a command without arguments has printed its help instead.
        message = " ".join(error.format_message().split()).rstrip(".")
        command = error.ctx.command_path if error.ctx else "slime"
        return message and f"{message}; see {command} --help", error.exit_code
    if isinstance(error, SlimeError):
        return " ".join(str(error).split()), 2
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in _EXTRA_OF_MODULE:
        extra = _EXTRA_OF_MODULE[(error.name or "").split(".")[0]]
        return f'{error.name} is not installed, and this command needs it: pip install "slime-vlm[{extra}]"', 2
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        if error.errno == errno.ENOSPC:
            return f"the disk is full{where}; free some space and run the same command again", 1
        return f"{error.strerror}{where}", 1
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _lacks_memory(error):
        return "out of memory; try a smaller --max-local-tokens, --dtype bfloat16 or another --device", 1
    return None


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LACKING_MEMORY)
