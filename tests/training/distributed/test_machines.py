"""A process of two dies, and the run goes on elsewhere: on two machines, or on one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from slime_vlm.training.trainer import SlimeTrainer
from tests.training.launching import Launch, assert_same


@dataclass(frozen=True)
class Machine:
    """Where a process runs: its network namespace, and the network interface to the other machine."""

    network: str | None
    interface: str


@contextmanager
def two_machines() -> Iterator[tuple[str, list[Machine]]]:
    """Address of the first of two machines, and both: network namespaces that a cable joins, else this one twice."""
    names = [f"slime{os.getpid()}{side}" for side in "ab"]
    cables = [f"cable{os.getpid()}{side}" for side in "ab"]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ends = [["name", cable, "netns", name] for cable, name in zip(cables, names, strict=True)]
            ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
            for number, (name, cable) in enumerate(zip(names, cables, strict=True), start=1):
                ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", cable)
                ip("-n", name, "link", "set", cable, "up")
                ip("-n", name, "link", "set", "lo", "up")
            pairs = zip(names, cables, strict=True)
            found = [Machine(name, cable) for name, cable in pairs]
            address = "10.77.0.1"
        except (OSError, subprocess.CalledProcessError):
            # Not root, or no such command.
            found, address = [Machine(None, "lo")] * 2, "127.0.0.1"
        yield address, found
    finally:
        for name in made:
            ip("netns", "del", name)


def test_a_killed_process_of_two_resumes_on_two_machines(shared_recipe: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = Launch(tmp_path / "first", ["train", str(shared_recipe), "--out", str(out)])
    first.wait_for_step(out / "3", 2)
    first.kill_rank(1)
    assert not (out / "3" / "model").exists(), "the stage was over before the signal came"
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    # The launch lines of docs/training.md, a process on each machine.
    resume = ["train", str(shared_recipe), "--out", str(out), "--resume", "--set", "stages.3.save_minutes=60"]
    with two_machines() as (address, machines):
        launches = []
        for rank, machine in enumerate(machines):
            place = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)]
            meeting = ["--master-addr", address, "--master-port", port]
            interface = {"GLOO_SOCKET_IFNAME": machine.interface}
            launches.append(Launch(tmp_path / str(rank), resume, [*place, *meeting], interface, machine.network))
        for launch in launches:
            launch.finish()
    assert_same(out / "3", alone)


def test_sums_of_two_processes_on_one(tmp_path: Path) -> None:
    for rank, (loss, bad) in enumerate([(1.0, [3]), (3.0, [5, 8])]):
        (tmp_path / f"sums_{rank}.json").write_text(json.dumps({"loss": loss, "sums": {}, "bad_records": bad}))
    trainer = SimpleNamespace(
        args=SimpleNamespace(world_size=1, process_index=0),
        bad_records=SimpleNamespace(seen=set()),
        train_dataset=None,
        speed=None,
        accept_data=False,
        _loss_sum=torch.zeros(()),
        _sums={},
    )
    SlimeTrainer._restore_sums(trainer, tmp_path)
    assert trainer._loss_sum == 2.0
    assert trainer.bad_records.seen == {3, 5, 8}
