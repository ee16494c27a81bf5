from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.training.models import recipe_config
from slime_vlm.training.plan import memory_estimate, sequence_length
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.run import train
from slime_vlm.training.stages import apply_stage

from ..conftest import tiny_config
from .mini import mini_recipe, write_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def test_memory_by_hand() -> None:
    recipe = load_recipe(RECIPES / "slime-vicuna-7b.yaml")
    stage = recipe.stages[-1]
    with torch.device("meta"):
        model = SlimeForConditionalGeneration(recipe_config(recipe, stage.config))
    apply_stage(model, stage)
    language, vision = 6_738_415_616, 303_507_456
    between = 20_979_712 + 2_048 + 4_794_368 + 4_352_000
    parts = memory_estimate(model, stage)
    assert parts["weights"] == 4 * (language + vision + between)
    assert parts["gradients"] == 4 * (language + between)
    assert parts["optimizer"] == 8 * (language + between)
    assert parts["bf16 copies"] == 2 * (language + between)
    tokens = (576 + 1 + 7 * 144 + 200) * stage.micro_batch_size
    assert parts["activations"] == tokens * (32 * 4096 * 2 + 34 * 4096 * 2)
    assert parts["logits"] == tokens * 32_000 * 4 * 2


def test_longest_sequence() -> None:
    assert sequence_length(tiny_config(), None) == 16 + 1 + 7 * 4 + 200
    assert sequence_length(tiny_config(), 50) == 50


def test_dry_run_prints_the_plan_and_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe", mini_recipe())
    train(path, tmp_path / "run", ["lm"], dry_run=True, overrides=["stages.lm.steps=77"])
    said = capsys.readouterr().out
    assert "steps: 77" in said
    assert "warmup_ratio: 0.03" in said, "defaults are part of the resolved recipe"
    assert "stage lm" in said
    assert "stage eye" not in said
    assert "GiB" in said
    assert not (tmp_path / "run").exists()
