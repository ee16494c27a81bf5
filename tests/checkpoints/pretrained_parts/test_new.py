"""`slime new` over folders in hub format: what is made, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM
from typer.testing import CliRunner

import slime_vlm
from slime_vlm.checkpoints.from_pretrained_parts import assemble, new
from slime_vlm.cli.app import app
from slime_vlm.errors import CheckpointError, ConfigError, SlimeError
from slime_vlm.inference.answering import ask
from slime_vlm.training.run import train
from tests.checkpoints.pretrained_parts.families import (
    STATISTICS,
    TOWERS,
    chat_tokenizer,
    write_language_model,
    write_tower,
)
from tests.saved_folder import assert_auto_classes_find_it, card_of

FIELDS = {"num_local_queries": 4, "query_attention_head_dim": 8}
CHAT_OF = {
    "llama": "vicuna",
    "smollm2": "smollm2",
    "qwen2": "qwen2",
    "qwen2.5": "qwen2",
    "qwen3": "qwen3",
    "mistral": "mistral",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders in hub format by name."""
    root = tmp_path_factory.mktemp("parts")
    found = {name: write_tower(root / name, name) for name in STATISTICS}
    found["clip-both"] = write_tower(root / "clip-both", "clip", two_towers=True)
    found["siglip-both"] = write_tower(root / "siglip-both", "siglip", two_towers=True)
    found |= {name: write_language_model(root / name, name, chat) for name, chat in CHAT_OF.items()}
    return found


@pytest.fixture
def damaged(parts: dict[str, Path], tmp_path: Path) -> Any:
    """Gives a copy of a part to damage."""
    return lambda name: Path(shutil.copytree(parts[name], tmp_path / f"damaged-{name}"))


def color_image() -> Image.Image:
    return Image.linear_gradient("L").resize((90, 60)).convert("RGB")


@pytest.mark.parametrize(
    ("tower", "llm"),
    [
        *((tower, "llama") for tower in (*STATISTICS, "clip-both", "siglip-both")),
        *(("clip", llm) for llm in CHAT_OF if llm != "llama"),
    ],
)
def test_made_saved_and_asked(parts: dict[str, Path], tmp_path: Path, tower: str, llm: str) -> None:
    report = new(str(parts[tower]), str(parts[llm]), tmp_path / "slime", fields=FIELDS)
    model, processor = slime_vlm.load(tmp_path / "slime", device="cpu")
    assert not (tmp_path / "slime.part").exists()
    assert (report.view_size, report.num_global_tokens) == (56, 16)
    assert report.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    # The pretrained weights are in it, number by number.
    vision = AutoModel.from_pretrained(parts[tower])
    for name, value in getattr(vision, "vision_model", vision).state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], value), name
    language = AutoModelForCausalLM.from_pretrained(parts[llm])
    for name, value in language.get_decoder().state_dict().items():
        assert torch.equal(model.model.language_model.state_dict()[name], value), name
    assert torch.equal(model.lm_head.weight, language.get_output_embeddings().weight)
    # Each family keeps its own colours.
    mean, std = STATISTICS[tower.removesuffix("-both")]
    assert (list(processor.image_processor.image_mean), list(processor.image_processor.image_std)) == (mean, std)
    pixels = processor.image_processor(Image.new("RGB", (56, 56), (255, 0, 51)), return_tensors="pt")["pixel_values"]
    expected = [(level - m) / s for level, m, s in zip((1.0, 0.0, 0.2), mean, std, strict=True)]
    torch.testing.assert_close(pixels[0, :, 3, 3], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    # The comma separates, the end of turn ends, the placeholder is never written.
    tokenizer = processor.tokenizer
    assert tokenizer.decode([model.config.separator_token_id]) == ","
    assert tokenizer.pad_token_id is not None
    assert tokenizer.padding_side == "left"
    ends = {tokenizer.decode([end]) for end in model.generation_config.eos_token_id}
    assert ends == {tokenizer.eos_token} | ({"<end_of_turn>"} if llm.startswith("gemma") else set())
    answers = ask(model, processor, color_image(), ["What?", "And why?"], max_new_tokens=3)
    assert len(answers) == 2
    assert "<image>" not in answers[0].text


def test_the_card_names_the_parts_that_others_can_find(parts: dict[str, Path], tmp_path: Path) -> None:
    cached = tmp_path / "models--owner--eye" / "snapshots" / "1"
    shutil.copytree(parts["clip"], cached)
    new(str(cached), str(parts["llama"]), tmp_path / "slime", fields=FIELDS)
    assert card_of(tmp_path / "slime")[0]["base_model"] == ["owner/eye"]
    assert_auto_classes_find_it(tmp_path / "slime")


def test_new_parts_are_drawn_as_published(parts: dict[str, Path]) -> None:
    model, _ = assemble(str(parts["clip"]), str(parts["llama"]), fields={**FIELDS, "num_local_queries": 16}, seed=3)
    slime = model.model
    # torch's own rule for a layer of 16 inputs: uniform within 1 / sqrt(16), weights and biases.
    for name in ("weight", "bias"):
        drawn = getattr(slime.projector.linear_1, name)
        assert 0.2 < drawn.abs().max() <= 0.25
    bound = (6 / (16 + 48)) ** 0.5
    for attention in (slime.global_adapter.query_attention, slime.local_compressor.query_attention):
        assert 0.9 * bound < attention.k_proj.weight.abs().max() <= bound
        assert 0.015 < attention.query.std() < 0.025
        assert 0.015 < attention.out_proj.weight.std() < 0.025
        assert not attention.v_proj.bias.any()
        assert (attention.norm_input.weight == 1).all()
    assert not slime.global_adapter.gate_weight.any()
    again, _ = assemble(str(parts["clip"]), str(parts["llama"]), fields={**FIELDS, "num_local_queries": 16}, seed=3)
    other, _ = assemble(str(parts["clip"]), str(parts["llama"]), fields={**FIELDS, "num_local_queries": 16}, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(slime.projector.linear_1.weight, other.model.projector.linear_1.weight)


def test_type_and_fields(parts: dict[str, Path], tmp_path: Path) -> None:
    fields = {**FIELDS, "view_size": 84, "max_tiles": 3}
    new(str(parts["dinov2"]), str(parts["qwen3"]), tmp_path / "slime", dtype="bfloat16", fields=fields)
    model, processor = slime_vlm.load(tmp_path / "slime", device="cpu", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert (model.config.num_global_tokens, processor.image_processor.view_size, model.config.max_tiles) == (36, 84, 3)


RECIPE = """
name: tiny
model: {{path: {model}}}
stages:
  - name: 1a
    trains: [projector, gate]
    config: {{views: global, gate: mlp}}
    data: {{records: {records}, conversation: plain}}
    steps: 3
    learning_rate: 1.0e-3
    batch_size: 1
    bf16: false
"""


def test_ready_for_the_first_stage(parts: dict[str, Path], tmp_path: Path) -> None:
    new(str(parts["siglip"]), str(parts["qwen3"]), tmp_path / "slime", fields=FIELDS)
    color_image().save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a cat"}]
    (tmp_path / "records.json").write_text(json.dumps([{"id": "1", "image": "a.png", "conversations": turns}]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=tmp_path / "slime", records=tmp_path / "records.json"))
    train(recipe, tmp_path / "run")
    before = slime_vlm.load(tmp_path / "slime", device="cpu")[0].state_dict()
    after = slime_vlm.load(tmp_path / "run" / "1a" / "model", device="cpu")[0].state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {f"model.projector.linear_{k}.{name}" for k in (1, 2) for name in ("weight", "bias")}


def test_a_recipe_that_names_both_parts(parts: dict[str, Path]) -> None:
    from slime_vlm.training.architecture import recipe_config
    from slime_vlm.training.models import start_model
    from slime_vlm.training.recipe import ModelSource, Recipe

    source = ModelSource(vision=str(parts["siglip-both"]), llm=str(parts["mistral"]), config=FIELDS)
    recipe = Recipe(name="r", model=source, stages=[], seed=3)
    model, processor = start_model(recipe, {"views": "global"})
    expected, _ = assemble(str(parts["siglip-both"]), str(parts["mistral"]), fields=FIELDS, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    assert model.config.views == "global"
    assert list(processor.image_processor.image_mean) == [0.5, 0.5, 0.5]
    planned = recipe_config(recipe, {})
    assert planned.token_layout == expected.config.token_layout
    assert planned.text_config.model_type == "mistral"
    wrong = {**FIELDS, "vision_config": {**TOWERS["clip"][0].to_dict(), "hidden_size": 24, "num_attention_heads": 3}}
    object.__setattr__(recipe, "model", ModelSource(vision=str(parts["clip"]), llm=str(parts["llama"]), config=wrong))
    with pytest.raises(ConfigError, match="weights do not fit the config"):
        start_model(recipe, {})


# Refused -------------------------------------------------------------------------------------------------------------


def refused(error: type[SlimeError], match: str, target: Path, vision: Any, llm: Any, **options: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        new(str(vision), str(llm), target / "out", **{"fields": FIELDS, **options})
    assert "\n" not in str(caught.value)
    assert not (target / "out").exists()
    assert not (target / "out.part").exists()


def test_parts_of_another_kind(parts: dict[str, Path], tmp_path: Path) -> None:
    clip, llama = parts["clip"], parts["llama"]
    (tmp_path / "empty").mkdir()
    refused(CheckpointError, "type 'llama', expected a vision encoder", tmp_path, llama, llama)
    refused(CheckpointError, "type 'clip_vision_model', expected a language model", tmp_path, clip, clip)
    refused(CheckpointError, "is not a vision encoder, such as CLIP", tmp_path, tmp_path / "empty", llama)
    refused(CheckpointError, "is not a language model, such as Llama", tmp_path, clip, tmp_path / "empty")
    refused(CheckpointError, "no such folder", tmp_path, tmp_path / "nowhere", llama)
    refused(CheckpointError, "no such folder", tmp_path, clip, tmp_path / "nowhere")
    refused(CheckpointError, "is a file", tmp_path, clip / "config.json", llama)
    refused(CheckpointError, r"ends in \.gguf", tmp_path, clip, llama / "config.json")


def test_damaged_parts(damaged: Any, parts: dict[str, Path], tmp_path: Path) -> None:
    clip, llama = damaged("clip"), damaged("llama")
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(CheckpointError, "damaged or incomplete", tmp_path, parts["clip"], llama)
    weights.unlink()
    refused(CheckpointError, "damaged or incomplete", tmp_path, parts["clip"], llama)
    shutil.copy(parts["llama"] / "model.safetensors", weights)
    (llama / "tokenizer.json").write_text("{")
    refused(CheckpointError, "tokenizer cannot be read", tmp_path, parts["clip"], llama)
    (clip / "preprocessor_config.json").write_text('{"image_mean": "x", "image_std": [1, 1, 1]}')
    refused(CheckpointError, "has image_mean 'x', expected three numbers", tmp_path, clip, parts["llama"])
    (clip / "preprocessor_config.json").unlink()
    refused(CheckpointError, "no preprocessor_config.json with image_mean", tmp_path, clip, parts["llama"])
    (clip / "config.json").write_text("[")
    refused(CheckpointError, "is not a vision encoder", tmp_path, clip, parts["llama"])


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        (
            "config.json",
            {"num_hidden_layers": 10**9},
            "has num_hidden_layers 1000000000, but the weights have 21 tensors",
        ),
        ("config.json", {"vocab_size": 10**10}, "describes a model of"),
        ("config.json", {"hidden_size": 25}, "is not a language model"),
        ("generation_config.json", {"eos_token_id": "x"}, "has eos_token_id 'x', expected token ids"),
    ],
    ids=str,
)
def test_settings_of_another_model(
    damaged: Any, parts: dict[str, Path], tmp_path: Path, pickled: bool, name: str, fields: dict[str, Any], words: str
) -> None:
    llama = damaged("llama")
    path = llama / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    if pickled:
        torch.save(load_file(llama / "model.safetensors"), llama / "pytorch_model.bin")
        (llama / "model.safetensors").unlink()
    refused(CheckpointError, words, tmp_path, parts["clip"], llama)


def test_missing_tensors_are_not_made_up(damaged: Any, parts: dict[str, Path], tmp_path: Path) -> None:
    for name, gone in (("clip", "post_layernorm.weight"), ("llama", "model.norm.weight")):
        folder = damaged(name)
        weights = load_file(folder / "model.safetensors")
        found = next(key for key in weights if key.endswith(gone))
        del weights[found]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        pair = {"clip": parts["clip"], "llama": parts["llama"], name: folder}
        refused(CheckpointError, r"lacks 1 tensor\(s\)", tmp_path, pair["clip"], pair["llama"])


def test_a_template_that_never_ends_an_answer(parts: dict[str, Path], damaged: Any, tmp_path: Path) -> None:
    folder = damaged("qwen2")
    tokenizer = chat_tokenizer("qwen2")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' | ' }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template)
    refused(ConfigError, "does not end an answer .* pass a conversation style", tmp_path, parts["clip"], folder)
    assert new(
        str(parts["clip"]), str(folder), tmp_path / "slime", conversation="v1", fields=FIELDS
    ).conversation.startswith("v1")


def test_settings_and_places(parts: dict[str, Path], tmp_path: Path) -> None:
    clip, llama = parts["clip"], parts["llama"]
    refused(ConfigError, "did you mean 'max_tiles'", tmp_path, clip, llama, fields={"max_tile": 3})
    refused(ConfigError, "not a multiple of patch_size", tmp_path, clip, llama, fields={"view_size": 57})
    refused(ConfigError, "dtype 'int3' is unknown", tmp_path, clip, llama, dtype="int3")
    refused(ConfigError, "style 'v7' is unknown", tmp_path, clip, llama, conversation="v7")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("taken", "file"):
        with pytest.raises(CheckpointError, match="exists already"):
            new(str(clip), str(llama), tmp_path / name, fields=FIELDS)
    assert (tmp_path / "taken" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    with pytest.raises(OSError, match="Not a directory"):
        new(str(clip), str(llama), tmp_path / "file" / "slime", fields=FIELDS)


def test_by_command(parts: dict[str, Path], tmp_path: Path) -> None:
    command = ["new", "--vision", str(parts["clip"]), "--llm", str(parts["gemma2"]), str(tmp_path / "slime")]
    settings = [word for key, value in FIELDS.items() for word in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(app, [*command, *settings])
    assert result.exit_code == 0, result.output
    assert "clip_vision_model (views of 56 pixels, 16 tokens) and gemma2" in result.output
    assert isinstance(CliRunner().invoke(app, [*command, "--set", "view_size"]).exception, ConfigError)
