"""Processes of their own that need not import torch and transformers again, which takes longer than a tiny training."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0


def forking() -> ForkServerContext:
    """Makes processes by forking one that has imported what training needs, once for all tests of a worker."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["slime_vlm.cli", "slime_vlm.training.run", "torch.distributed.run"])
    with pytest.MonkeyPatch.context() as patch:
        # It does not look where this process looks for modules.
        patch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
        forkserver.ensure_running()
    return context


def start(said: Path, call: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Call a function of a module in a process of its own, with one thread, so that sums come out the same.

    Args:
        said: file that its standard error goes to.
        call: the function.
        arguments: those of the function.
    """
    process = forking().Process(target=_call, args=(said, call, arguments))
    process.start()
    # Else a process that never ends, in a test that gave up, would be waited for at exit.
    atexit.register(process.kill)
    return process


def _call(said: Path, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch

    os.chdir(ROOT)
    torch.set_num_threads(1)
    with said.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    call(*arguments)


def slime(*arguments: str) -> None:
    """The command `slime`, which ends the process that it is called in."""
    from slime_vlm.cli import main

    sys.argv = ["slime", *arguments]
    main()
