"""torchrun itself, but for one thing: processes are forked from the one that starts them, and import nothing again.

It is apart from `launching`, since every process that runs it imports this file.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of Linux."""


def torchrun(variables: dict[str, str], arguments: Sequence[str], network: str | None) -> None:
    """Start processes as torchrun does on a cluster, and wait for their end.

    Args:
        variables: environment variables to add. The processes leave their ids in the folder `PIDS`.
        arguments: those of torchrun, the word `slime`, and those of the command.
        network: name of the network namespace to start them in.
    """
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    if network is not None:
        enter(network)
    os.environ.update(variables)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    options = parse_args(["--start-method", "fork", *arguments])
    elastic_launch(config_from_args(options)[0], process)(*options.training_script_args)


def enter(network: str) -> None:
    """Move this process into a network namespace. `os.setns` comes with Python 3.12."""
    descriptor = os.open(f"/run/netns/{network}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, NEW_NETWORK):
        raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {network}")
    os.close(descriptor)


def process(*arguments: str) -> None:
    """One process of the run: the command `slime`."""
    from slime_vlm.cli import main

    # So that a test can kill a single one.
    Path(os.environ["PIDS"], os.environ["RANK"]).write_text(str(os.getpid()))
    if "SHARDED" in os.environ:
        from tests.training.distributed.cpu_sharding import shard_on_cpu

        shard_on_cpu()
    sys.argv = ["slime", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
