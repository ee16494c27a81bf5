"""Runs of several processes, started by torchrun as on a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from slime_vlm.training.trainer import COMPLETE

ROOT = Path(__file__).parents[2]

# Every process leaves its id, so that a test can kill a single one.
_SCRIPT = """
import os
from pathlib import Path

import torch

torch.set_num_threads(1)
Path(os.environ["PIDS"], os.environ["RANK"]).write_text(str(os.getpid()))
if "SHARDED" in os.environ:
    from tests.training.cpu_sharding import shard_on_cpu

    shard_on_cpu()
from slime_vlm.cli import main

main()
"""


def sharding(file: Path) -> dict[str, str]:
    """Environment of the recipe for FSDP2, as `accelerate launch` sets it; what is sharded is written to `file`."""
    recipe = yaml.safe_load((ROOT / "recipes" / "accelerate" / "fsdp2.yaml").read_text())
    values = {key.upper(): str(value) for key, value in recipe["fsdp_config"].items()}
    return {**values, "ACCELERATE_USE_FSDP": "true", "SHARDED": str(file)}


class Launch:
    """One torchrun and the processes that it starts.

    Args:
        folder: for the script and the processes' ids.
        train: arguments of `slime train`.
        torchrun: arguments of torchrun; two processes on this machine by default.
        environment: variables to add.
        inside: a command that runs another, such as one that enters a network namespace.
    """

    def __init__(
        self,
        folder: Path,
        train: Sequence[str],
        torchrun: Sequence[str] = ("--nproc-per-node", "2", "--standalone"),
        environment: dict[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.py").write_text(_SCRIPT)
        self.folder = folder
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-m", "torch.distributed.run", *torchrun, str(folder / "train.py"), *train],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
                "OMP_NUM_THREADS": "1",
                "PIDS": str(folder),
                **(environment or {}),
            },
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_step(self, stage_folder: Path, step: int) -> None:
        """Wait until a complete checkpoint of at least this step is there."""
        until = time.monotonic() + 900
        while time.monotonic() < until and self.process.poll() is None:
            steps = [int(path.parent.name.split("-")[1]) for path in stage_folder.glob(f"checkpoint-*/{COMPLETE}")]
            if max(steps, default=0) >= step:
                return
            time.sleep(0.005)
        raise AssertionError(f"no checkpoint came: {self.process.communicate()[1]}")

    def kill_rank(self, rank: int) -> None:
        """Kill one process as a machine that fails would; torchrun then ends the others."""
        os.kill(int((self.folder / str(rank)).read_text()), signal.SIGKILL)
        assert self.process.wait(timeout=900) != 0
        self.process.communicate()

    def finish(self) -> str:
        """Wait for the end, which has to be a good one; returns what was said."""
        said = self.process.communicate(timeout=900)[1]
        assert self.process.returncode == 0, said
        return said
