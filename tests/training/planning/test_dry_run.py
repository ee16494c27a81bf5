from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from slime_vlm.data import MixtureOrder, RecordDataset, Share, open_source
from slime_vlm.data.images import open_stored_image, stored_image_size
from slime_vlm.errors import ConfigError
from slime_vlm.media.orientation import ORIENTATION_TAG
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.recipes import FOLDER as RECIPES
from slime_vlm.training.architecture import recipe_config
from slime_vlm.training.models import start_model
from slime_vlm.training.planning.dry_run import Hardware, StepPlan, memory_estimate, sequence_length
from slime_vlm.training.planning.sample_lengths import Sample, samples_of, work_of
from slime_vlm.training.planning.step_flops import UNITS
from slime_vlm.training.recipe import DataSource, PageTraining, Recipe, Stage, load_recipe
from slime_vlm.training.records import RecordCollator
from slime_vlm.training.run import train
from slime_vlm.training.stages import apply_stage
from tests.conftest import tiny_config
from tests.training.mini import mini_recipe, records_recipe, write_recipe, write_records


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
    assert parts["logits"] == 200 * stage.micro_batch_size * 32_000 * 4 * 2


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
    assert "stage encoder" not in said
    assert "GiB" in said
    assert not (tmp_path / "run").exists()


def plan_of(recipe_path: Path, capsys: pytest.CaptureFixture[str], hardware: Hardware, stage: str = "3") -> str:
    train(recipe_path, stages=[stage], dry_run=True, hardware=hardware)
    return " ".join(capsys.readouterr().out.split())


def test_memory_of_several_processes() -> None:
    recipe = load_recipe(RECIPES / "slime-vicuna-7b.yaml")
    stage = recipe.stages[-1]
    with torch.device("meta"):
        model = SlimeForConditionalGeneration(recipe_config(recipe, stage.config))
    apply_stage(model, stage)
    alone, whole = memory_estimate(model, stage), memory_estimate(model, stage, processes=8)
    spread = memory_estimate(model, stage, processes=8, sharded=True)
    assert whole == {**alone, "sent gradients": alone["gradients"]}
    for name in ("weights", "gradients", "optimizer", "bf16 copies"):
        assert spread[name] == alone[name] / 8
    assert spread["activations"] == alone["activations"]
    layer = 4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096
    # Embeddings, head and the last norm, and all that sees.
    outside = 2 * 32_000 * 4096 + 4096 + 303_507_456 + 20_979_712 + 2_048 + 4_794_368 + 4_352_000
    assert spread["gathered"] == 2 * (2 * layer + outside)


def test_work_by_hand() -> None:
    config = tiny_config(selector_top_p=0.5)
    stage = Stage("3", ["projector"], DataSource(records="x"), 1e-3, 2)
    work = work_of(Sample(((1, 2), (2, 2)), text=10, labels=4), config, stage)
    # 16 global tokens and a separator each; of 8 and 16 local ones at most floor(top_p L) + 1 are kept.
    tokens = 10 + 2 * 17 + 5 + 9
    assert work == {
        "views": 3 + 5,
        "adapted": 2,
        "tiles": 6,
        "projected": 2 * 2 * 16 + 6 * 4,
        "tokens": tokens,
        "pairs": tokens**2,
        "logits": 4,
    }
    config.max_sequence_length = 20
    assert work_of(Sample(((1, 2),), text=10, labels=4), config, stage)["tokens"] == 20
    config.views, config.gate = "global", "mlp"
    work = work_of(Sample(((1, 2),), text=1, labels=1), config, stage)
    assert [work[unit] for unit in ("views", "adapted", "tiles", "projected", "tokens")] == [1, 0, 0, 16, 17]


@pytest.mark.parametrize(
    ("trains", "tiles_read", "expected"),
    [
        (["vision_tower", "projector"], None, [6, 0, 6]),
        (["local_compressor"], 3, [3, 0, 3]),
        (["local_compressor"], 7, [6, 0, 6]),
        (["global_adapter"], 3, [1, 1, 0]),
        (["vision_tower", "global_adapter"], 3, [4, 1, 3]),
    ],
)
def test_work_of_reading_by_hand(trains: list[str], tiles_read: int | None, expected: list[int]) -> None:
    pages = PageTraining(objective="read", tiles_read=tiles_read)
    stage = Stage("encoder", trains, DataSource(pages={}), 1e-3, 2, page_training=pages)
    work = work_of(Sample(((2, 3),), text=10, labels=4), tiny_config(), stage)
    assert [work[unit] for unit in ("views", "adapted", "tiles")] == expected
    assert work["tokens"] == 0


def test_tokens_are_counted_in_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = records_recipe(tmp_path / "data", cache_features={"folder": "cache", "dtype": "float16"})
    said = plan_of(write_recipe(tmp_path, recipe), capsys, Hardware(gpus=2, tflops=2e-6, utilisation=0.5))
    assert "measured on 3 of 3 records: image sizes from file headers; tokens counted by its tokenizer" in said
    # Images of 60 x 70 are six tiles of 28: 4 + 1 + 6 tokens before selection, then the text.
    assert "GiB, DDP on 2" in said
    assert "GiB, FSDP on 2" in said
    assert "steps │ 30" in said
    assert "time of the stage" in said
    assert "x 2 images = 0.0 GiB in cache, at most 500 GiB" in said
    assert "views encoded │ 0" in said
    assert re.search(r"encoding them once, before the steps: [\d.e-]+ TFLOP, [\d.,]+ (h|min); none", said)


def test_counted_as_the_processor_counts(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, records_recipe(tmp_path / "data")))
    (stage,) = recipe.stages
    samples = samples_of(recipe, stage, recipe_config(recipe, stage.config))
    _, processor = start_model(recipe, stage.config)
    records = RecordDataset(open_source(stage.data.records or ""))
    batch = RecordCollator(records, processor)([0, 1, 2])
    texts = ((batch["attention_mask"] == 1) & (batch["input_ids"] != processor.image_token_id)).sum(1)
    assert [sample.text for sample in samples.found] == [int(texts[index]) for index in order_of(recipe, records)]
    labels = (batch["labels"] != -100).sum(1)
    assert sum(sample.labels for sample in samples.found) == int(labels.sum())
    grids = {grid for sample in samples.found for grid in sample.grids}
    assert grids == {(int(rows), int(cols)) for rows, cols in batch["image_grids"]}
    assert samples.count == 90


def order_of(recipe: Recipe, records: RecordDataset) -> list[int]:
    order = MixtureOrder(records, [Share()], recipe.seed + recipe.stages[0].seed)
    return [order[place] for place in range(3)]


def test_assumptions_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = records_recipe(tmp_path / "data", steps=None, epochs=1.0)
    recipe["stages"][0]["data"] = {"records": "nowhere.json"}
    said = plan_of(write_recipe(tmp_path, recipe), capsys, Hardware(tflops=1.0))
    assert "no data at nowhere.json: assumed one image of 7 tiles and 200 tokens of text" in said
    assert "unknown without" in said
    assert "time of 100,000 samples" in said

    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "conversations": []}\n{"id": "b", "image": "gone.png", "conversations": []}\n')
    recipe["stages"][0]["data"] = {"records": str(bad)}
    said = plan_of(write_recipe(tmp_path, recipe), capsys, Hardware())
    assert "none of 2 records could be used (the first one: " in said
    assert "the record has no 'conversations'" in said
    assert "slime data check names all): assumed one image" in said

    records = write_records(tmp_path / "data")
    recipe["stages"][0]["data"] = {"records": str(records)}
    recipe["model"] |= {"vision": "a/b", "llm": "c/d"}
    # Stated in full, as the paper's recipes do.
    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "num_attention_heads": 2, "patch_size": 14}
    text = {"model_type": "llama", "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 3}
    recipe["model"]["config"] |= {"vision_config": vision, "text_config": text}
    said = plan_of(write_recipe(tmp_path, recipe), capsys, Hardware())
    assert "tokens of text assumed, one for 4 characters, as the tokenizer is not on this machine" in said
    assert "give --tflops (of one GPU) and --gpus" in said
    assert "will be refused" not in said
    said = plan_of(write_recipe(tmp_path, recipe), capsys, Hardware(gpus=2))
    assert "a run on 2 GPUs will be refused: batch_size is 3, expected a multiple of 1 x 2" in said


def test_hours_by_hand() -> None:
    step = StepPlan(dict.fromkeys(UNITS, 1.0), {"a": 3e12, "b": 1e12}, 10, 4, steps=7200)
    hardware = Hardware(gpus=2, tflops=10, utilisation=0.1)
    assert step.seconds(hardware) == pytest.approx(2.0)
    assert step.hours(hardware) == pytest.approx(4.0)
    assert step.hours(Hardware()) is None


@pytest.mark.parametrize("values", [{"gpus": 0}, {"tflops": 0.0}, {"utilisation": 0.0}, {"utilisation": 1.5}])
def test_impossible_hardware(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(values))} is .*, expected"):
        Hardware(**values)


def test_sizes_from_headers(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "plain.png")
    for name in ("turned.jpg", "plain.png"):
        image = open_stored_image(name, tmp_path)
        assert stored_image_size(name, tmp_path) == (image.height, image.width)
    assert stored_image_size((tmp_path / "plain.png").read_bytes(), tmp_path) == (20, 30)
    (tmp_path / "text.png").write_text("no image")
    assert stored_image_size("text.png", tmp_path) is None
    assert stored_image_size("missing.png", tmp_path) is None
