"""DeepSpeed's ZeRO-3 on two processes of a CPU: what they learn is what one process learns without it."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from slime_vlm.errors import ConfigError
from slime_vlm.recipes import FOLDER as RECIPES
from slime_vlm.training.distributed.deepspeed import check_zero_checkpoint
from slime_vlm.training.run import train
from slime_vlm.training.stage_checks import check_start
from tests.training.forking import ROOT
from tests.training.launching import Launch, assert_same
from tests.training.mini import losses, records_recipe, write_recipe

DEEPSPEED = importlib.util.find_spec("deepspeed")

RECIPE = RECIPES / "accelerate" / "zero3.yaml"


def environment(**settings: str) -> dict[str, str]:
    """What `accelerate launch` tells the processes of the recipe; deepspeed is where this process finds it."""
    config = yaml.safe_load(RECIPE.read_text())["deepspeed_config"]
    names = {"zero3_init_flag": "zero3_init"}
    values = {f"ACCELERATE_DEEPSPEED_{names.get(key, key).upper()}": str(value) for key, value in config.items()}
    assert DEEPSPEED is not None
    assert DEEPSPEED.origin is not None
    paths = [ROOT / "src", ROOT, Path(DEEPSPEED.origin).parents[1]]
    return {
        **values,
        **settings,
        "ACCELERATE_USE_DEEPSPEED": "true",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }


def states(checkpoint: Path, rank: int, kind: str) -> dict[str, Any]:
    """What a process wrote of the optimizer ("optim") or of the model ("model")."""
    (path,) = checkpoint.glob(f"global_step*/*zero_pp_rank_{rank}_*_{kind}_states.pt")
    found: dict[str, Any] = torch.load(path, weights_only=False)
    return found


@pytest.mark.skipif(DEEPSPEED is None, reason="deepspeed is not installed")
def test_two_processes_are_one_and_resume(tmp_path: Path) -> None:
    values = records_recipe(
        tmp_path / "data",
        steps=6,
        batch_size=4,
        micro_batch_size=1,
        learning_rate=1e-3,
        save_minutes=0.0,
        gradient_checkpointing=True,
        # What is drawn at random differs between processes.
        config={"selector_noise": 0.0, "gate_noise": False},
    )
    # A second stage builds its model after ZeRO-3 was turned on.
    values["stages"].append({**values["stages"][0], "name": "4", "steps": 2})
    recipe, out, alone = write_recipe(tmp_path, values), tmp_path / "run", tmp_path / "alone"
    torch.set_num_threads(1)
    train(recipe, alone)

    first = Launch(tmp_path / "first", ["train", str(recipe), "--out", str(out)], environment=environment())
    first.wait_for_step(out / "3", 2)
    first.kill_rank(1)
    assert not (out / "3" / "model").exists(), "the stage was over before the signal came"

    # Weights as small as these stay gathered by default; here every use of a part gathers them from both processes.
    config = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {
            "stage": 3,
            "stage3_param_persistence_threshold": 0,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    }
    (tmp_path / "zero.json").write_text(json.dumps(config))
    settings = environment(ACCELERATE_DEEPSPEED_CONFIG_FILE=str(tmp_path / "zero.json"))
    arguments = ["train", str(recipe), "--out", str(out), "--resume"]
    Launch(tmp_path / "second", arguments, environment=settings).finish()

    assert sorted(losses(alone / "3")) == [1, 2, 3, 4, 5, 6]
    assert_same(out / "3", alone / "3")
    assert_same(out / "4", alone / "4")
    expected = load_file(alone / "3" / "model" / "model.safetensors")

    checkpoint = max((out / "3").glob("checkpoint-*"))
    for rank in range(2):
        kept, shapes = states(checkpoint, rank, "optim")["optimizer_state_dict"], states(checkpoint, rank, "model")
        trained = {name: size.numel() for group in shapes["param_shapes"] for name, size in group.items()}
        assert {"lm_head.weight", "model.global_adapter.gate_weight"} < trained.keys() < expected.keys()
        assert kept["zero_stage"] == 3
        held = sum(part.numel() for part in kept["fp32_flat_groups"])
        # Every weight is split in two halves, the second of which may be filled up by one.
        assert held == sum(-(-size // 2) for size in trained.values())
    with pytest.raises(ConfigError, match=r"was written by DeepSpeed on 2 processes, and there are 1 without it: cont"):
        check_zero_checkpoint(checkpoint, deepspeed=False, processes=1)


def test_checkpoints_meet_what_wrote_them(tmp_path: Path) -> None:
    check_zero_checkpoint(tmp_path, deepspeed=False, processes=1)
    with pytest.raises(
        ConfigError, match="was not written by DeepSpeed: continue with --resume as the run was started"
    ):
        check_zero_checkpoint(tmp_path, deepspeed=True, processes=2)
    (tmp_path / "global_step4").mkdir()
    for rank in range(2):
        (tmp_path / "global_step4" / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    check_zero_checkpoint(tmp_path, deepspeed=True, processes=2)
    with pytest.raises(ConfigError, match="on 2 processes, and there are 3 with it"):
        check_zero_checkpoint(tmp_path, deepspeed=True, processes=3)
    with pytest.raises(ConfigError, match="on 2 processes, and there are 2 without it"):
        check_zero_checkpoint(tmp_path, deepspeed=False, processes=2)


def test_what_a_start_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    stage: Any = SimpleNamespace(name="3", bf16=True, batch_size=2, samples_a_pass=lambda processes: 1)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    found = importlib.util.find_spec("json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "deepspeed" else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="stage '3' has bf16: true, but DeepSpeed computes in float32 without"):
        check_start(stage, 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="started with DeepSpeed, which is not installed: pip install deepspeed"):
        check_start(stage, 2)
