"""Several processes learn together: what they learn is what one process learns from the same global batches."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image
from safetensors.torch import load_file

from slime_vlm.errors import ConfigError
from slime_vlm.training.run import train
from slime_vlm.training.sharding import is_sharded
from slime_vlm.training.trainer import SlimeTrainer

from .launching import ROOT, Launch, sharding
from .mini import losses, mini_recipe, records_recipe, write_recipe

STEPS = 12


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same(found: Path, expected: Path) -> None:
    """Same losses at every step to 1e-4, and the same weights."""
    curve = losses(expected)
    assert sorted(curve) == list(range(1, len(curve) + 1))
    assert losses(found) == pytest.approx(curve, rel=1e-4)
    weights, others = weights_of(expected), weights_of(found)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        # Running statistics are those of what the saving process has seen.
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(others[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_two_processes_are_one_with_an_objective(tmp_path: Path) -> None:
    recipe = mini_recipe()
    # No random numbers in it but those of the pages: what differs would be the exchange of gradients.
    stage = {**recipe["stages"][0], "batch_size": 2, "micro_batch_size": 1, "steps": 4, "bf16": False}
    recipe["stages"] = [stage]
    path = write_recipe(tmp_path / "recipe", recipe)
    train(path, tmp_path / "alone")
    Launch(tmp_path / "two", ["train", str(path), "--out", str(tmp_path / "together")]).finish()
    assert_same(tmp_path / "together" / "eye", tmp_path / "alone" / "eye")
    for name, count in (("alone", 1), ("together", 2)):
        done = json.loads((tmp_path / name / "eye" / "model" / "stage.json").read_text())
        assert done["totals"]["samples"] == 8, "over all processes"
        assert done["environment"]["processes"] == count


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with answers of several lengths; a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("recipe")
    values = records_recipe(
        folder / "data",
        steps=STEPS,
        batch_size=4,
        micro_batch_size=1,
        learning_rate=1e-3,
        save_minutes=0.0,
        gradient_checkpointing=True,
        # What is drawn at random differs between processes.
        config={"selector_noise": 0.0, "gate_noise": False},
    )
    records = []
    for i in range(6):
        Image.new("RGB", (60 + 10 * i, 80), (40 * i, 90, 120)).save(folder / "data" / f"{i}.png")
        turns = [
            {"from": "human", "value": "<image>\nHow many?"},
            {"from": "gpt", "value": " ".join("abcdef"[: i + 1])},
        ]
        records.append({"id": str(i), "image": f"{i}.png", "conversations": turns})
    # Text alone uses fewer parts than a picture does, and embeddings less often.
    said = [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "2"}]
    records.append({"id": "text", "conversations": said})
    (folder / "data" / "records.json").write_text(json.dumps(records))
    return write_recipe(folder, values)


@pytest.fixture(scope="module")
def alone(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stage as one process runs it."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("alone")
    train(recipe, out)
    return out / "3"


def test_shards_on_two_processes_and_then_on_one(recipe: Path, alone: Path, tmp_path: Path) -> None:
    out, sharded = tmp_path / "run", tmp_path / "sharded.json"
    first = Launch(tmp_path / "first", ["train", str(recipe), "--out", str(out)], environment=sharding(sharded))
    first.wait_for_step(out / "3", 2)
    first.kill_rank(1)
    assert not (out / "3" / "model").exists(), "the stage was over before the signal came"
    parameters = json.loads(sharded.read_text())
    assert len(parameters) > 50
    assert all(parameters.values()), "Accelerate fell back to copies of the whole model"
    torn = shutil.copytree(out, tmp_path / "torn")

    second = ["train", str(recipe), "--out", str(out), "--resume"]
    Launch(tmp_path / "second", second, environment=sharding(sharded)).finish()
    assert_same(out / "3", alone)

    checkpoints = sorted((torn / "3").glob("checkpoint-*/complete"))
    assert checkpoints
    assert all(is_sharded(path.parent) for path in checkpoints)
    train(recipe, torn, resume=True)
    assert_same(torn / "3", alone)


@dataclass(frozen=True)
class Machine:
    """Where a process runs: a command that runs another there, and the network interface to the other machine."""

    inside: tuple[str, ...]
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
            found = [Machine(("ip", "netns", "exec", name), cable) for name, cable in pairs]
            address = "10.77.0.1"
        except (OSError, subprocess.CalledProcessError):
            # Not root, or no such command.
            found, address = [Machine((), "lo")] * 2, "127.0.0.1"
        yield address, found
    finally:
        for name in made:
            ip("netns", "del", name)


def test_a_killed_process_of_two_resumes_on_two_machines(recipe: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = Launch(tmp_path / "first", ["train", str(recipe), "--out", str(out)])
    first.wait_for_step(out / "3", 2)
    first.kill_rank(1)
    assert not (out / "3" / "model").exists(), "the stage was over before the signal came"
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    # The launch lines of docs/training.md, a process on each machine.
    resume = ["train", str(recipe), "--out", str(out), "--resume", "--set", "stages.3.save_minutes=60"]
    with two_machines() as (address, machines):
        launches = []
        for rank, machine in enumerate(machines):
            place = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)]
            meeting = ["--master-addr", address, "--master-port", port]
            interface = {"GLOO_SOCKET_IFNAME": machine.interface}
            launches.append(Launch(tmp_path / str(rank), resume, [*place, *meeting], interface, machine.inside))
        for launch in launches:
            launch.finish()
    assert_same(out / "3", alone)


def test_whole_checkpoints_are_not_taken_for_shards(alone: Path) -> None:
    checkpoint = next(alone.glob("checkpoint-*"))
    assert not is_sharded(checkpoint)
    with pytest.raises(ConfigError, match="is not in shards: go on with --resume without FSDP"):
        SlimeTrainer._load_from_checkpoint(SimpleNamespace(is_fsdp_enabled=True), str(checkpoint))


def test_sums_of_two_processes_on_one(tmp_path: Path) -> None:
    for rank, (loss, bad) in enumerate([(1.0, [3]), (3.0, [5, 8])]):
        (tmp_path / f"sums_{rank}.json").write_text(json.dumps({"loss": loss, "sums": {}, "bad_records": bad}))
    trainer = SimpleNamespace(
        args=SimpleNamespace(world_size=1, process_index=0),
        bad_records=SimpleNamespace(seen=set()),
        train_dataset=None,
        speed=None,
        _loss_sum=torch.zeros(()),
        _sums={},
    )
    SlimeTrainer._take_up_sums(trainer, tmp_path)
    assert trainer._loss_sum == 2.0
    assert trainer.bad_records.seen == {3, 5, 8}


@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_accelerate_reads_its_recipes(name: str) -> None:
    path = ROOT / "recipes" / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.num_processes == 8
    known = {"fsdp2": config.fsdp_config, "zero3": config.deepspeed_config}[name]
    assert known == yaml.safe_load(path.read_text())[f"{'fsdp' if name == 'fsdp2' else 'deepspeed'}_config"]
