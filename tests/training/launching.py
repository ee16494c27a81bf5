"""Runs of several processes, started as torchrun starts them on a cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from slime_vlm.recipes import FOLDER as RECIPES
from slime_vlm.training.checkpoint_manifest import MANIFEST
from tests.training.forking import PATIENCE, start
from tests.training.mini import losses
from tests.training.torchrun import torchrun as run_torchrun


def sharding(file: Path) -> dict[str, str]:
    """Environment of the recipe for FSDP2, as `accelerate launch` sets it; what is sharded is written to `file`."""
    recipe = yaml.safe_load((RECIPES / "accelerate" / "fsdp2.yaml").read_text())
    values = {key.upper(): str(value) for key, value in recipe["fsdp_config"].items()}
    return {**values, "ACCELERATE_USE_FSDP": "true", "SHARDED": str(file)}


class Launch:
    """One torchrun and the processes that it starts.

    Args:
        folder: for the processes' ids and what they say.
        arguments: those of the command `slime`.
        torchrun: arguments of torchrun; two processes on this machine by default.
        environment: variables to add.
        network: the network namespace to start it in.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        torchrun: Sequence[str] = ("--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
        environment: dict[str, str] | None = None,
        network: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.said = folder, folder / "said"
        # NCCL takes no two processes on one GPU.
        fixed = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PIDS": str(folder)}
        variables = {**fixed, **(environment or {})}
        self.process = start(self.said, run_torchrun, variables, [*torchrun, "slime", *arguments], network)

    def wait_for_step(self, stage_folder: Path, step: int) -> None:
        """Wait until a complete checkpoint of at least this step is there."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.is_alive():
            steps = [int(path.parent.name.split("-")[1]) for path in stage_folder.glob(f"checkpoint-*/{MANIFEST}")]
            if max(steps, default=0) >= step:
                return
            time.sleep(0.005)
        self.process.kill()
        raise AssertionError(f"no checkpoint came: {self.said.read_text()}")

    def kill_rank(self, rank: int) -> None:
        """Kill one process as a machine that fails would; torchrun then ends the others."""
        os.kill(int((self.folder / str(rank)).read_text()), signal.SIGKILL)
        self.refuse()

    def finish(self) -> str:
        """Wait for the end, which has to be a good one; returns what was said."""
        said, code = self._end()
        assert code == 0, said
        return said

    def refuse(self) -> str:
        """Wait for the end, which has to be one with an error; returns what was said."""
        said, code = self._end()
        assert code != 0, said
        return said

    def _end(self) -> tuple[str, int]:
        self.process.join(PATIENCE)
        said, code = self.said.read_text(), self.process.exitcode
        if code is None:
            self.process.kill()
            raise AssertionError(f"it does not end: {said}")
        return said, code


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
