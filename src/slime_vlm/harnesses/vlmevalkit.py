"""Runs VLMEvalKit with SliME among its models: `python -m slime_vlm.harnesses.vlmevalkit --model nano --data MMStar`.

VLMEvalKit has no plugins, its models are a dictionary: this adds one more and starts its `run.py`.
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
    """Starts VLMEvalKit; leaves with 2 and one line where something is wrong.

    Args:
        arguments: the command line; what is not ours goes to VLMEvalKit.
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
    """Takes our options out of a command line.

    Returns:
        Arguments of `vlmevalkit_model.SlimeVlm`, and what VLMEvalKit reads.
    """
    parser = argparse.ArgumentParser(
        prog="python -m slime_vlm.harnesses.vlmevalkit",
        description="Runs VLMEvalKit on a SliME; all other options are VLMEvalKit's own.",
        # VLMEvalKit's own options must not be taken for the beginnings of ours.
        allow_abbrev=False,
    )
    parser.add_argument("--model", dest="pretrained", default="nano", help="nano (shipped), a folder, or a hub id")
    parser.add_argument("--device", help="cpu, cuda, … (default: cuda if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16, … (default: float32 on CPU, bfloat16 on GPU)")
    parser.add_argument("--max-new-tokens", type=int, default=1024, help="longest answer in tokens")
    parser.add_argument("--max-tiles", type=int, help="most tiles of an image")
    parser.add_argument("--max-local-tokens", type=int, help="keep exactly the best so many local tokens")
    found, passed_on = parser.parse_known_args(arguments)
    # The config's own values stay where nothing is said.
    options = {name: value for name, value in vars(found).items() if value is not None}
    return options, passed_on


def result_name(model: str) -> str:
    """Name of a model in VLMEvalKit's tables and folders: `slime-` and the last part of its own."""
    return f"slime-{Path(model).resolve().name if Path(model).exists() else model.rpartition('/')[2]}"


def find_script() -> Path:
    """VLMEvalKit's `run.py`: in a checkout it lies beside the package, in a wheel within.

    Raises:
        ConfigError: VLMEvalKit is not installed, or has no such file.
    """
    found = importlib.util.find_spec("vlmeval")
    if found is None or found.origin is None:
        raise ConfigError("VLMEvalKit is not installed; docs/evaluation.md says how (pip install ms-vlmeval)")
    package = Path(found.origin).parent
    for folder in (package.parent, package):
        if (folder / "run.py").is_file():
            return folder / "run.py"
    raise ConfigError(f"{package} has no run.py beside it or within, expected VLMEvalKit; see docs/evaluation.md")


if __name__ == "__main__":
    main()
