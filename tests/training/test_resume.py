"""A run that is killed at any moment goes on as if nothing had happened (training/run.py, training/trainer.py)."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from slime_vlm.errors import CheckpointError, ConfigError, DataError
from slime_vlm.training.checkpoint_manifest import MANIFEST, complete_checkpoints
from slime_vlm.training.records import RecordCollator
from slime_vlm.training.run import train
from slime_vlm.training.trainer import ClockCheckpoints
from tests.training.forking import PATIENCE, slime, start
from tests.training.mini import losses, mini_recipe, records_recipe, write_recipe, write_records


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that writes a checkpoint at every step."""
    values = mini_recipe()
    for stage in values["stages"]:
        stage["save_minutes"] = 0.0
    return write_recipe(tmp_path_factory.mktemp("recipe"), values)


@pytest.fixture(scope="module")
def unbroken(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("unbroken")
    torch.set_num_threads(1)
    train(recipe, out)
    return out


def wait_for_step(process: BaseProcess, folder: Path, step: int) -> None:
    """Wait until a complete checkpoint of at least this step is there."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        steps = [int(path.parent.name.split("-")[1]) for path in folder.glob(f"checkpoint-*/{MANIFEST}")]
        if max(steps, default=0) >= step:
            return
        if not process.is_alive():
            break
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint came, the process ended with {process.exitcode}")


def copy_up_to(stage: str, unbroken: Path, out: Path) -> None:
    """The unbroken run as it was before a stage."""
    shutil.copytree(unbroken, out)
    names = ["encoder", "lm", "both"]
    for name in names[names.index(stage) :]:
        shutil.rmtree(out / name)


def assert_same_run(stage: str, ours: Path, unbroken: Path) -> None:
    expected = losses(unbroken / stage)
    assert sorted(expected) == list(range(1, 9))
    assert losses(ours / stage) == expected
    theirs = load_file(unbroken / stage / "model" / "model.safetensors")
    weights = load_file(ours / stage / "model" / "model.safetensors")
    assert weights.keys() == theirs.keys()
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("stage", ["encoder", "lm", "both"])
def test_killed_in_a_stage(
    stage: str, recipe: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    copy_up_to(stage, unbroken, out)
    process = start(tmp_path / "said", slime, "train", str(recipe), "--out", str(out), "--stage", stage)
    wait_for_step(process, out / stage, 2)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / stage / "model" / "stage.json").exists(), "the stage was over before the signal came"

    # What a kill in the middle of writing leaves behind: the newest checkpoint, without its mark.
    torn = out / stage / "checkpoint-8"
    torn.mkdir(exist_ok=True)
    (torn / MANIFEST).unlink(missing_ok=True)
    (torn / "model.safetensors").write_bytes(b"half of")

    train(recipe, out, [stage], resume=True)
    assert capsys.readouterr().err.count(f"stage {stage}: process {process.pid} on ") == 1, "its lock"
    assert_same_run(stage, out, unbroken)


def test_killed_before_the_first_checkpoint(unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = mini_recipe()
    recipe, out = write_recipe(tmp_path, values), tmp_path / "run"
    train(recipe, out, ["encoder"], resume=True)
    nothing = f"nothing to resume in {out}: the run starts from the beginning"
    assert nothing in capsys.readouterr().err.replace("\n", "")
    # What such a kill leaves: the folder of the stage, with a torn checkpoint at most.
    shutil.rmtree(out / "encoder" / "model")
    shutil.rmtree(out / "encoder" / "runs")
    (out / "encoder" / "checkpoint-1").mkdir()
    train(recipe, out, ["encoder"], resume=True)
    said = capsys.readouterr().err
    assert said.count("stage encoder: no complete checkpoint, starting over\n") == 1
    assert "nothing to resume" not in said
    assert_same_run("encoder", out, unbroken)


def test_interrupted_and_resumed(recipe: Path, unbroken: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "run", tmp_path / "said"
    command = ["train", str(recipe), "--out", str(out), "--stage", "encoder"]
    process = start(file, slime, *command)
    wait_for_step(process, out / "encoder", 2)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(PATIENCE)
    said = file.read_text()
    assert process.exitcode == 130, said
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("stopped after step")
    assert last.endswith("of 8 of stage encoder; continue with --resume")
    step = int(last.split()[3])
    assert max(complete_checkpoints(out / "encoder")) == step

    with pytest.raises(ConfigError, match="unfinished run: use --resume"):
        train(recipe, out, ["encoder"])
    process = start(file, slime, *command, "--resume")
    process.join(PATIENCE)
    said = file.read_text()
    assert process.exitcode == 0, said
    assert f"stage encoder: resuming after step {step} of 8" in said
    assert_same_run("encoder", out, unbroken)


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets a run of this process die as soon as the checkpoint of a step is complete; 0 lets it live."""
    whole = ClockCheckpoints.on_save

    def set_step(step: int) -> None:
        def on_save(self: ClockCheckpoints, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            whole(self, args, state, control, **kwargs)
            if state.global_step == step:
                raise RuntimeError("killed")

        monkeypatch.setattr(ClockCheckpoints, "on_save", on_save)

    return set_step


def test_killed_between_two_points_of_the_curve(killed_after: Callable[[int], None], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    values = mini_recipe()
    values["stages"] = [{**values["stages"][1], "steps": 40, "save_minutes": 0.0}]
    path = write_recipe(tmp_path, values)
    train(path, tmp_path / "unbroken", overrides=["stages.lm.save_minutes=60"])
    killed_after(7)
    with pytest.raises(RuntimeError, match="killed"):
        train(path, tmp_path / "killed")
    killed_after(0)
    train(path, tmp_path / "killed", resume=True, overrides=["stages.lm.save_minutes=60"])
    for tag in ("train/loss", "train/selector_loss"):
        expected = losses(tmp_path / "unbroken" / "lm", tag)
        assert sorted(expected) == list(range(2, 41, 2))
        assert losses(tmp_path / "killed" / "lm", tag) == expected


def test_bad_records_are_remembered(killed_after: Callable[[int], None], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = records_recipe(tmp_path / "data", steps=6, batch_size=1, save_minutes=0.0)
    records = tmp_path / "data" / "records.json"
    content = [{**record, "id": str(i)} for i, record in enumerate(4 * json.loads(records.read_text()))]
    for i in (2, 5, 8, 11):
        content[i] = {"id": str(i), "conversations": [{"from": "nobody", "value": "?"}]}
    records.write_text(json.dumps(content))
    recipe["stages"][0]["data"] = {"records": str(records), "max_bad": 0.34}
    path = write_recipe(tmp_path, recipe)
    seen: list[list[int]] = []
    train(path, tmp_path / "unbroken")
    killed_after(4)
    with pytest.raises(RuntimeError, match="killed"):
        train(path, tmp_path / "killed")
    killed_after(0)
    train(path, tmp_path / "killed", resume=True)
    for run in ("unbroken", "killed"):
        checkpoints = sorted((tmp_path / run / "3").glob("checkpoint-*"))
        seen.append(json.loads((checkpoints[-1] / "sums_0.json").read_text())["bad_records"])
    assert seen[0] == seen[1] != []
    assert losses(tmp_path / "killed" / "3") == losses(tmp_path / "unbroken" / "3")


@pytest.mark.parametrize("packing", [False, True])
def test_a_mixture_goes_on_at_the_exact_record(
    packing: bool, killed_after: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    options = {"steps": 8, "batch_size": 4, "micro_batch_size": 2, "save_minutes": 0.0}
    recipe = records_recipe(tmp_path / "data", packing=packing, **options)
    small = write_records(tmp_path / "small", as_lines=True)
    mixture = [{"path": str(tmp_path / "data" / "records.json"), "passes": 3.0}, {"path": str(small)}]
    recipe["stages"][0]["data"] = {"mixture": mixture}
    path = write_recipe(tmp_path, recipe)
    taken: list[list[str]] = []
    collate = RecordCollator.__call__

    def noting(self: RecordCollator, indices: list[int]) -> dict[str, Any]:
        taken[-1] += [self.dataset.name_of(index) for index in indices]
        return collate(self, indices)

    monkeypatch.setattr(RecordCollator, "__call__", noting)
    taken.append([])
    train(path, tmp_path / "unbroken")
    killed_after(3)
    taken.append([])
    with pytest.raises(RuntimeError, match="killed"):
        train(path, tmp_path / "killed")
    checkpoint = tmp_path / "killed" / "3" / "checkpoint-3"
    kept = json.loads((checkpoint / "sums_0.json").read_text())["data"]
    assert kept["position"] == 12
    killed_after(0)
    taken.append([])
    train(path, tmp_path / "killed", resume=True)
    unbroken, killed, resumed = taken
    assert len(unbroken) == 32
    # A loader takes one batch ahead of the step.
    assert killed == unbroken[: len(killed)]
    assert len(killed) >= 12
    assert resumed == unbroken[12:]
    # Nine samples of the one source to three of the other, in every epoch of twelve.
    assert sum(str(small) in name for name in unbroken[:12]) == 3

    shutil.rmtree(tmp_path / "killed" / "3" / "model")
    small.write_text(small.read_text() + "\n" + small.read_text().splitlines()[0])
    with pytest.raises(DataError, match=r"records\.jsonl has 4 records and had 3\. Restore them"):
        train(path, tmp_path / "killed", resume=True)


def test_a_finished_run_says_so(
    recipe: Path, unbroken: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert train(recipe, unbroken, resume=True) == unbroken / "both" / "model"
    assert "nothing to do" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="finished stage: use --resume to keep it"):
        train(recipe, unbroken)


def test_a_stage_killed_while_its_model_was_written(recipe: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    copy_up_to("lm", unbroken, out)
    shutil.copytree(unbroken / "lm", out / "lm")
    (out / "lm" / "model" / "stage.json").unlink()
    (out / "lm" / "model" / "model.safetensors").write_bytes(b"half of")
    shutil.rmtree(out / "lm" / "runs")
    train(recipe, out, ["lm"], resume=True)
    weights = load_file(out / "lm" / "model" / "model.safetensors")
    theirs = load_file(unbroken / "lm" / "model" / "model.safetensors")
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs)


def without(path: Path) -> None:
    path.unlink()


def with_noise(path: Path) -> None:
    with path.open("rb+") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(200))


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (without, "optimizer.pt"),
        (without, "scheduler.pt"),
        (without, "rng_state.pth"),
        (with_noise, "model.safetensors"),
        (with_noise, "optimizer.pt"),
        (halved, "trainer_state.json"),
    ],
)
def test_the_newest_checkpoint_is_damaged(
    damage: Callable[[Path], None],
    name: str,
    recipe: Path,
    unbroken: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    copy_up_to("lm", unbroken, out)
    shutil.copytree(unbroken / "lm", out / "lm")
    shutil.rmtree(out / "lm" / "model")
    assert list(complete_checkpoints(out / "lm")) == [6, 7]
    damage(out / "lm" / "checkpoint-7" / name)
    train(recipe, out, ["lm"], resume=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert len(lines) == 1
    assert lines[0].startswith("stage lm: checkpoint-7 is damaged (")
    assert lines[0].endswith("set aside as damaged-checkpoint-7")
    assert (out / "lm" / "damaged-checkpoint-7").is_dir()
    assert list(complete_checkpoints(out / "lm")) == [6, 7], "the second is written again"
    assert_same_run("lm", out, unbroken)


def test_a_finished_stage_is_damaged(
    recipe: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    (out / "lm" / "model" / "README.md").write_text("A card that a user completed.")
    train(recipe, out, resume=True)
    assert "nothing to do" in capsys.readouterr().err
    with_noise(out / "lm" / "model" / "model.safetensors")
    shutil.rmtree(out / "both")
    with pytest.raises(CheckpointError, match=r"damaged \(the content of model.safetensors .* --resume --stage lm$"):
        train(recipe, out, ["both"], resume=True)
    shutil.copytree(unbroken / "both", out / "both")
    train(recipe, out, resume=True)
    said = capsys.readouterr().err
    damage = "stage lm: its model is damaged (the content of model.safetensors changed), set aside as damaged-model"
    assert said.count(damage) == 1
    assert "stage encoder: already finished, kept" in said
    assert "stage both: already finished, kept" in said
    assert_same_run("lm", out, unbroken)
    assert (out / "lm" / "damaged-model" / "stage.json").is_file()


def test_a_run_of_an_earlier_version(
    recipe: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / "both" / "model")
    for path in out.glob(f"*/checkpoint-*/{MANIFEST}"):
        path.write_text("")
    for path in out.glob("*/model/stage.json"):
        record = json.loads(path.read_text())
        del record["files"]
        path.write_text(json.dumps(record))
    train(recipe, out, resume=True)
    said = capsys.readouterr().err
    assert said.count("stage both: checkpoint-7 is of an earlier version and has no hashes") == 1
    assert said.count("already finished, kept") == 2
    assert_same_run("both", out, unbroken)


def test_a_clock_that_was_set_back(
    recipe: Path, unbroken: Path, tmp_path: Path, killed_after: Callable[[int], None]
) -> None:
    out = tmp_path / "run"
    killed_after(3)
    with pytest.raises(RuntimeError, match="killed"):
        train(recipe, out, ["lm"])
    assert list(complete_checkpoints(out / "lm")) == [2, 3]
    # The checkpoints that follow look older than those that are there.
    tomorrow = time.time() + 86400
    for path in [*out.glob("lm/checkpoint-*/*"), *out.glob("lm/checkpoint-*")]:
        os.utime(path, (tomorrow, tomorrow))
    killed_after(5)
    with pytest.raises(RuntimeError, match="killed"):
        train(recipe, out, ["lm"], resume=True)
    assert list(complete_checkpoints(out / "lm")) == [4, 5]
    killed_after(0)
    train(recipe, out, ["lm"], resume=True)
    assert_same_run("lm", out, unbroken)


def train_on_a_full_disk(recipe: Path, out: Path) -> None:
    # Writing beyond the limit fails as on a full disk.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    train(recipe, out, ["encoder"])


def test_a_full_disk_is_one_line(recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "said"
    process = start(file, train_on_a_full_disk, recipe, tmp_path / "run")
    process.join(PATIENCE)
    said = file.read_text()
    last = said.strip().splitlines()[-1]
    assert last.startswith("slime_vlm.errors.CheckpointError: cannot write to"), said
    assert last.endswith("continue with --resume")
    # The torn checkpoint is not taken for one.
    assert not complete_checkpoints(tmp_path / "run" / "encoder")


def test_an_unwritable_folder_is_one_line(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write to .*Not a directory") as caught:
        train(recipe, tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)
