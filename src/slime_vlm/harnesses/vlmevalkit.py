"""Run VLMEvalKit with SliME: `python -m slime_vlm.harnesses.vlmevalkit --model nano --data MMStar`.

VLMEvalKit has no plug-ins. Its models are a dictionary: this module adds one entry and starts VLMEvalKit's `run.py`.
"""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

from slime_vlm.errors import ConfigError, SlimeError


def main(arguments: list[str] | None = None) -> None:
    """Start VLMEvalKit. A wrong option or a missing package ends with one line and exit code 2.

    Args:
        arguments: The command line. Options that are not listed here go to VLMEvalKit.
    """
    try:
        options, passed_on = read_arguments(sys.argv[1:] if arguments is None else arguments)
        script = find_script()
    except SlimeError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  (the command line itself)
        raise SystemExit(2) from None
    from vlmeval.config import supported_VLM

    from slime_vlm.harnesses.vlmevalkit_model import SlimeVlm

    name = result_name(options["pretrained"])
    supported_VLM[name] = partial(SlimeVlm, **options)
    sys.argv = [str(script), "--model", name, *passed_on]
    runpy.run_path(str(script), run_name="__main__")


def read_arguments(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split a command line into the model's options and VLMEvalKit's.

    Args:
        arguments: The command line.

    Returns:
        Arguments of `vlmevalkit_model.SlimeVlm`, and the remaining arguments.
    """
    parser = argparse.ArgumentParser(
        prog="python -m slime_vlm.harnesses.vlmevalkit",
        description="Run VLMEvalKit on a SliME model. All other options go to VLMEvalKit.",
        # Do not take VLMEvalKit's options for abbreviations of these.
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model",
        dest="pretrained",
        default="nano",
        help="model to load: nano (shipped with the package), a checkpoint folder or a hub id",
    )
    parser.add_argument("--device", help="device to run on: cpu, cuda, cuda:1, … (default: cuda if there is one)")
    parser.add_argument(
        "--dtype",
        help="number type of the weights: float32, bfloat16 or float16 (default: float32 on CPU, bfloat16 on GPU)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=1024, help="maximum length of an answer, in tokens")
    parser.add_argument("--max-tiles", type=int, help="maximum number of tiles per image")
    parser.add_argument(
        "--max-local-tokens",
        type=int,
        help="keep exactly this many local tokens per image, those with the highest selector scores",
    )
    found, passed_on = parser.parse_known_args(arguments)
    # Options that are not given keep the values of the model's config.
    options = {name: value for name, value in vars(found).items() if value is not None}
    return options, passed_on


def result_name(model: str) -> str:
    """Return the name of a model in VLMEvalKit's tables and folders: `slime-` and the last part of its path or id."""
    return f"slime-{Path(model).resolve().name if Path(model).exists() else model.rpartition('/')[2]}"


def find_script() -> Path:
    """Return the path of VLMEvalKit's `run.py`: beside the package in a checkout, inside it in a wheel.

    Raises:
        ConfigError: VLMEvalKit is not installed, or has no `run.py`.
    """
    found = importlib.util.find_spec("vlmeval")
    if found is None or found.origin is None:
        raise ConfigError("VLMEvalKit is not installed; install it with pip install ms-vlmeval, see docs/evaluation.md")
    package = Path(found.origin).parent
    for folder in (package.parent, package):
        if (folder / "run.py").is_file():
            return folder / "run.py"
    raise ConfigError(f"{package} has no run.py beside or inside it, expected VLMEvalKit; see docs/evaluation.md")


if __name__ == "__main__":
    main()
