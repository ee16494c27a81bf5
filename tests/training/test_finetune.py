"""The recipes for a user's own records: nano on a file with damage in it, and what a GPU of 24 GB has to hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from slime_vlm.checkpoints.loading import load
from slime_vlm.errors import CheckpointError
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.pages import PageSettings, write_pages
from slime_vlm.recipes import FOLDER as RECIPES
from slime_vlm.training.architecture import recipe_config
from slime_vlm.training.lora import add_lora
from slime_vlm.training.planning.dry_run import GIB, memory_estimate
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.run import train
from slime_vlm.training.stages import apply_stage


def own_records(folder: Path) -> Path:
    """Fifty questions about rendered pages, of which three cannot be used: each is damaged in a way of its own."""
    size = {"tiles": [2, 2], "page_scale": [0.9, 1.1]}
    settings = PageSettings.from_dict({**size, "kinds": {"form": 1.0}, "fonts": "pillow", "questions": 2})
    lines = write_pages(folder, 25, 3, settings).read_text().splitlines()
    records: list[dict[str, Any]] = []
    for line in lines:
        page = json.loads(line)
        turns = page["conversations"]
        for number in (0, 2):
            question, answer = dict(turns[number]), turns[number + 1]
            question["value"] = "<image>\n" + question["value"].removeprefix("<image>\n")
            records.append({**page, "id": f"q{len(records)}", "conversations": [question, answer]})
    truncated = folder / "truncated.png"
    truncated.write_bytes((folder / records[7]["image"]).read_bytes()[:400])
    records[7]["image"] = truncated.name
    records[20]["image"] = "nowhere.png"
    records[33]["conversations"].reverse()
    assert len(records) == 50
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_nano_on_records_with_damage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    records = own_records(tmp_path / "mine")
    out = tmp_path / "run"
    # Tiles alone, for the time.
    changes = [f"stages.3.data.records={records}", "stages.3.config={views: local}"]
    folder = train(RECIPES / "finetune-nano.yaml", out, overrides=changes)
    bad = [json.loads(line) for line in (out / "3" / "bad_records_0.jsonl").read_text().splitlines()]
    assert {record["place"] for record in bad} == {7, 20, 33}
    said = capfd.readouterr().err
    for place, reason in ((7, "truncated.png"), (20, "nowhere.png"), (33, "no answer after a question")):
        (record,) = [record for record in bad if record["place"] == place]
        assert f"q{place}" in record["reason"]
        assert reason in record["reason"]
        assert f"left out: {record['reason']}" in said
    assert "3 records were left out" in said
    # A folder of a few adapters that answers, over the shipped model.
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "nano"
    model, processor = load(folder, device="cpu")
    before, _ = load("nano", device="cpu")
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(model.state_dict()[name], before.state_dict()[name])
    inputs = processor(text="<image>\nWhat is the total?", images=Image.new("RGB", (256, 256), "white"))
    assert torch.isfinite(model(**inputs).logits).all()


@pytest.mark.parametrize(("llm", "held"), [("vicuna-7b", "bfloat16"), ("llama3-8b", "4bit")])
def test_a_gpu_of_24_gb_is_enough_by_the_plan(llm: str, held: str) -> None:
    stage = load_recipe(RECIPES / "finetune-lora-24gb.yaml", {"stages.3.lora.base_weights": held}).stages[0]
    assert stage.lora is not None
    paper = load_recipe(RECIPES / f"slime-{llm}.yaml")
    with torch.device("meta"):
        model = SlimeForConditionalGeneration(recipe_config(paper, stage.config))
        add_lora(model, stage.lora)
    apply_stage(model, stage)
    parts = memory_estimate(model, stage)
    # What CUDA, fragmentation and the vision encoder's activations take is not in the estimate.
    assert 10 * GIB < sum(parts.values()) < 20 * GIB


def test_the_placeholder_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="slime-7b: no such folder, expected nano, pages, a checkpoint folder or a hub"
    ):
        train(RECIPES / "finetune-lora-24gb.yaml", tmp_path / "run", dry_run=True)
