"""What a finished stage leaves behind, through a resume: speed, curves, card, environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from slime_vlm.checkpoints.loading import load
from slime_vlm.training.planning.dry_run import Hardware
from slime_vlm.training.recipe import DataSource, ModelSource, Recipe, Stage
from slime_vlm.training.reporting.curves import draw_curves
from slime_vlm.training.reporting.model_card import write_card
from slime_vlm.training.reporting.stage_report import note_start
from slime_vlm.training.run import train
from slime_vlm.training.trainer import ClockCheckpoints
from tests.saved_folder import assert_auto_classes_find_it
from tests.training.mini import losses, records_recipe, write_recipe

SPEED = ("samples_per_s", "tokens_per_s", "mfu", "data_wait")


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


def test_a_run_that_was_resumed(
    killed_after: Callable[[int], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = records_recipe(tmp_path / "data", steps=60, batch_size=2, save_minutes=0.0)
    second = {**recipe["stages"][0], "name": "4", "trains": ["projector"], "steps": 2}
    recipe["stages"].append(second)
    path, out = write_recipe(tmp_path, recipe), tmp_path / "run"
    # A point of the curve is three steps: the checkpoint lies within one.
    killed_after(8)
    with pytest.raises(RuntimeError, match="killed"):
        train(path, out, ["3"])
    killed_after(0)
    calm = ["stages.3.save_minutes=60", "stages.4.save_minutes=60"]
    train(path, out, resume=True, overrides=calm, hardware=Hardware(tflops=0.001))
    said = capfd.readouterr().err
    assert "TFLOP/s a process, a matrix product in float32 on this machine" in said
    assert "utilisation is measured against 0.001 TFLOP/s a process, as given by --tflops" in said
    lines = [line for line in said.splitlines() if line.startswith("3 ")]
    assert all(f" {name} " in line for line in lines for name in SPEED)
    for name in SPEED:
        values = losses(out / "3", f"train/{name}")
        assert sorted(values) == list(range(3, 61, 3))
        assert all(value > 0 for value in values.values())
    assert all(value <= 1 for value in losses(out / "3", "train/data_wait").values())

    done = json.loads((out / "3" / "model" / "stage.json").read_text())
    assert done["steps"] == 60
    assert done["totals"]["samples"] == 120, "those before the kill and those after it, each once"
    assert done["totals"]["flops"] > done["totals"]["tokens"] > 120
    starts = json.loads((out / "3" / "environment.json").read_text())
    assert len(starts) == 2
    (source,) = starts[0]["data"]
    assert source["records"] == 3
    assert len(source["content"]) == 32

    for name in ("3", "4"):
        with Image.open(out / name / "curves.png") as image:
            assert image.width > 900
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20
    card = (out / "4" / "model" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": "unknown",
        "tags": ["slime", "vision-language-model", "high-resolution"],
    }
    assert_auto_classes_find_it(out / "4" / "model")
    assert "| 3 | projector, gate, global_adapter," in body
    assert "| 4 | projector | 2 | 2 |" in body
    assert f"- stage 3: records.json, 3 records (content {source['content']})" in body
    assert str(tmp_path) not in card, "paths of this machine"
    load(out / "4" / "model", device="cpu")


def test_card_of_a_model_from_nothing() -> None:
    stage = Stage("encoder", ["projector"], DataSource(pages={}), 1e-3, 4, steps=3)
    environment = {
        "processes": 2,
        "machine": {"processor": "P", "threads": 2, "devices": ["GPU A", "GPU B"]},
        "versions": {"python": "3.11"},
        "commit": {"commit": "0123456789abcdef", "dirty": True},
    }
    record = {"stage": "encoder", "steps": 3, "environment": environment, "data": [{"pages": 12}]}
    card = write_card(Recipe("small", ModelSource(), [stage]), stage, [], record)
    assert "# small, stage encoder" in card
    assert "- nothing: all weights were drawn at random" in card
    assert "- GPU A, GPU B; 2 processes" in card
    assert "commit 0123456789ab with changes" in card
    assert "- stage encoder: pages rendered by slime-vlm, 12 of them" in card
    assert "| encoder |  | 3 |  |  |  |  |  |" in card
    assert "base_model" not in card
    over = Recipe("large", ModelSource(vision="a/eye", llm="b/words"), [stage])
    assert "base_model:\n- a/eye\n- b/words\n---" in write_card(over, stage, [], record)


def test_damaged_notes_are_set_aside(tmp_path: Path) -> None:
    stage = Stage("encoder", ["projector"], DataSource(pages={}), 1e-3, 4, steps=3)
    for text in ('[{"started"', "3"):
        (tmp_path / "environment.json").write_text(text)
        note_start(tmp_path, tmp_path / "recipe.yaml", stage, [], 1)
        assert len(json.loads((tmp_path / "environment.json").read_text())) == 1
    note_start(tmp_path, tmp_path / "recipe.yaml", stage, [], 1)
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 2
    assert (tmp_path / "damaged-environment.json").read_text() == '[{"started"'


def test_curves(tmp_path: Path) -> None:
    assert draw_curves([{"train_runtime": 3.0}], "nothing", tmp_path / "none.png") is None
    # A run of before, without speeds, has an image, too.
    history = [{"loss": 2.0, "learning_rate": 1e-3, "step": 1}, {"loss": 1.0, "learning_rate": 0.0, "step": 2}]
    path = draw_curves(history, "old", tmp_path / "old.png")
    assert path is not None
    assert path.stat().st_size > 1000
