"""Runs of several processes, started as torchrun starts them on a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from slime_vlm.recipes import FOLDER as RECIPES
from slime_vlm.training.checkpoint_manifest import MANIFEST
from tests.training.forking import PATIENCE, ROOT
from tests.training.mini import losses

# torchrun itself, but for one thing: processes are forked from the one that starts them, and import nothing again.
# Each leaves its id, so that a test can kill a single one.
_TORCHRUN = """
import os
import sys
from pathlib import Path

import torch
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

import slime_vlm.training.run
from slime_vlm.cli import main


def process(*arguments):
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


torch.set_num_threads(1)
options = parse_args(["--start-method", "fork", *sys.argv[1:]])
elastic_launch(config_from_args(options)[0], process)(*options.training_script_args)
"""


def sharding(file: Path) -> dict[str, str]:
    """Environment of the recipe for FSDP2, as `accelerate launch` sets it; what is sharded is written to `file`."""
    recipe = yaml.safe_load((RECIPES / "accelerate" / "fsdp2.yaml").read_text())
    values = {key.upper(): str(value) for key, value in recipe["fsdp_config"].items()}
    return {**values, "ACCELERATE_USE_FSDP": "true", "SHARDED": str(file)}


class Launch:
    """One torchrun and the processes that it starts.

    Args:
        folder: for the processes' ids.
        arguments: those of the command `slime`.
        torchrun: arguments of torchrun; two processes on this machine by default.
        environment: variables to add.
        inside: a command that runs another, such as one that enters a network namespace.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        torchrun: Sequence[str] = ("--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
        environment: dict[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-c", _TORCHRUN, *torchrun, "slime", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
                "OMP_NUM_THREADS": "1",
                # NCCL takes no two processes on one GPU.
                "CUDA_VISIBLE_DEVICES": "",
                "PIDS": str(folder),
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_step(self, stage_folder: Path, step: int) -> None:
        """Wait until a complete checkpoint of at least this step is there."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            steps = [int(path.parent.name.split("-")[1]) for path in stage_folder.glob(f"checkpoint-*/{MANIFEST}")]
            if max(steps, default=0) >= step:
                return
            time.sleep(0.005)
        self.process.kill()
        raise AssertionError(f"no checkpoint came: {self.process.communicate()[0]}")

    def kill_rank(self, rank: int) -> None:
        """Kill one process as a machine that fails would; torchrun then ends the others."""
        os.kill(int((self.folder / str(rank)).read_text()), signal.SIGKILL)
        assert self.process.wait(timeout=PATIENCE) != 0
        self.process.communicate()

    def finish(self) -> str:
        """Wait for the end, which has to be a good one; returns what was said."""
        try:
            said = self.process.communicate(timeout=PATIENCE)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert self.process.returncode == 0, said
        return said


def assert_same(found: Path, expected: Path) -> None:
    """Two stages have the same losses at every step to 1e-4, and the same weights."""
    curve = losses(expected)
    assert sorted(curve) == list(range(1, len(curve) + 1))
    assert losses(found) == pytest.approx(curve, rel=1e-4)
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (expected, found))
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        # Running statistics are those of what the saving process has seen.
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(others[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
