"""Low-rank adapters: merged into the model, kept apart in a folder that loads back, and on weights of 16 and 4 bits."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import LlamaConfig
from typer.testing import CliRunner

from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.lora.merge import merge
from slime_vlm.cli import app
from slime_vlm.errors import CheckpointError, ConfigError
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.training.lora import LORA_MARK, add_lora, bytes_saved, merged, save_lora
from slime_vlm.training.recipe import LoraSettings, load_recipe
from slime_vlm.training.run import train
from slime_vlm.training.trainer import SlimeTrainer
from tests.conftest import tiny_config, tiny_model
from tests.saved_folder import assert_auto_classes_find_it, card_of
from tests.tiny_checkpoints import save_native
from tests.training.mini import losses, records_recipe, write_recipe

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}


def filled(model: SlimeForConditionalGeneration) -> None:
    """Give adapters values: new ones add nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if LORA_MARK in name:
                parameter.normal_(std=0.2)


def test_merged_logits_equal_unmerged() -> None:
    model, settings = tiny_model(), LoraSettings(rank=4, alpha=8, dropout=0.0)
    names = set(model.state_dict())
    ids = torch.randint(4, 60, (2, 9))
    before = model(input_ids=ids).logits
    add_lora(model, settings)
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    filled(model)
    unmerged = model.eval()(input_ids=ids).logits
    assert (unmerged - before).abs().max() > 1e-2
    weights = merged(model.state_dict(), settings)
    assert set(weights) == names
    plain = tiny_model()
    plain.load_state_dict(weights)
    torch.testing.assert_close(plain(input_ids=ids).logits, unmerged, atol=1e-5, rtol=1e-5)


def recipe_on_checkpoint(folder: Path, width: int = 24, **stage: Any) -> tuple[dict[str, Any], Path]:
    """One stage on three records over a native checkpoint."""
    base = folder / "base"
    heads = {"num_attention_heads": width // 8, "num_key_value_heads": width // 8}
    text = LlamaConfig(hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, **heads)
    save_native(base, text_config=text)
    recipe = records_recipe(folder / "data", steps=4, **stage)
    recipe["model"] = {"path": str(base)}
    return recipe, base


def logits_of(folder: Path) -> torch.Tensor:
    model, processor = load(folder, device="cpu", dtype="float32")
    inputs = processor(text="<image>\nWhat?", images=Image.radial_gradient("L").resize((90, 60)).convert("RGB"))
    with torch.no_grad():
        return model(**inputs).logits


@pytest.fixture(scope="module")
def kept_apart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Folder of adapters that were kept apart, of the same run with them merged, and their base."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lora")
    # Gradient checkpointing and rates of parts as well, which the paper's recipes use.
    rates = {"learning_rate": 1e-2, "part_learning_rates": {"projector": 1e-3}}
    recipe, base = recipe_on_checkpoint(folder, lora=LORA, gradient_checkpointing=True, **rates)
    path = write_recipe(folder, recipe)
    apart = train(path, folder / "apart", overrides=["stages.3.lora.merge=false"])
    whole = train(path, folder / "whole")
    return apart, whole, base


def test_adapters_that_were_merged_load_like_any_model(kept_apart: tuple[Path, Path, Path]) -> None:
    _, whole, _ = kept_apart
    model, _ = load(whole, device="cpu")
    assert not [name for name in model.state_dict() if LORA_MARK in name or "base_layer" in name]
    curve = losses(whole.parent)
    assert curve[4] < curve[1]


def test_a_folder_of_adapters_loads_back(kept_apart: tuple[Path, Path, Path]) -> None:
    apart, whole, base = kept_apart
    settings = json.loads((apart / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base.resolve())
    assert settings["modules_to_save"] == ["model.global_adapter", "model.local_compressor", "model.projector"]
    assert not (apart / "model.safetensors").exists()
    assert "`slime merge FOLDER OUT`" in (apart / "README.md").read_text()
    assert "slime merge" not in (whole / "README.md").read_text()
    assert not list(apart.glob("pytorch_model*"))
    assert_auto_classes_find_it(apart)
    assert_auto_classes_find_it(whole)
    stored = load_file(apart / "adapter_model.safetensors")
    trained = {name for name in stored if LORA_MARK in name}
    # Seven linear layers in two blocks, two matrices each.
    assert len(trained) == 28
    assert "base_model.model.model.global_adapter.gate_weight" in stored
    assert (logits_of(apart) - logits_of(base)).abs().max() > 1e-3
    torch.testing.assert_close(logits_of(apart), logits_of(whole), atol=1e-5, rtol=1e-4)


def test_peft_itself_reads_the_folder(kept_apart: tuple[Path, Path, Path]) -> None:
    apart, _, base = kept_apart
    model, processor = load(base, device="cpu", dtype="float32")
    inputs = processor(text="<image>\nWhat?", images=Image.radial_gradient("L").resize((90, 60)).convert("RGB"))
    with torch.no_grad():
        logits = PeftModel.from_pretrained(model, str(apart)).eval()(**inputs).logits
        ours, _ = load(apart, device="cpu", dtype="float32")
        torch.testing.assert_close(logits, ours(**inputs).logits, atol=1e-5, rtol=1e-4)


def test_merge_proves_what_it_writes(kept_apart: tuple[Path, Path, Path], tmp_path: Path) -> None:
    apart, whole, base = kept_apart
    done = CliRunner().invoke(app, ["merge", str(apart), str(tmp_path / "merged")])
    assert done.exit_code == 0, done.output
    assert f"on {base.resolve()} -> {tmp_path / 'merged'}: low-rank weights added to 14 tensors" in done.output
    difference, largest = re.findall(r"of a logit: (\S+) \(largest logit (\S+),", done.output)[0]
    assert float(difference) <= 1e-4 * float(largest)
    torch.testing.assert_close(logits_of(tmp_path / "merged"), logits_of(whole), atol=1e-5, rtol=1e-4)
    with pytest.raises(CheckpointError, match="exists already"):
        merge(apart, tmp_path / "merged")
    with pytest.raises(CheckpointError, match="is not a LoRA of slime train"):
        merge(base, tmp_path / "other")


def test_merge_refuses_what_differs(
    kept_apart: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sum that is wrong by a hundredth of one layer's weights.
    monkeypatch.setattr("slime_vlm.checkpoints.lora.weights.merged_weight", lambda weight, a, b, scale: weight * 1.01)
    with pytest.raises(CheckpointError, match=r"changes logits by up to .*, nothing was written"):
        merge(kept_apart[0], tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_base_that_was_moved(kept_apart: tuple[Path, Path, Path], tmp_path: Path) -> None:
    apart = shutil.copytree(kept_apart[0], tmp_path / "apart")
    settings = json.loads((apart / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tmp_path / "gone")
    (apart / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(
        CheckpointError, match=r"is a LoRA on '.*gone', which is neither .* put it back, write"
    ) as caught:
        load(apart)
    assert "\n" not in str(caught.value)
    merge(apart, tmp_path / "merged", base=kept_apart[2])
    assert_auto_classes_find_it(tmp_path / "merged")
    assert card_of(tmp_path / "merged")[0]["pipeline_tag"] == "image-text-to-text"
    save_native(tmp_path / "other", text_config=LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2))
    with pytest.raises(CheckpointError, match="pass the base that it was trained on"):
        merge(apart, tmp_path / "again", base=tmp_path / "other")


def test_damaged_adapters(kept_apart: tuple[Path, Path, Path], tmp_path: Path) -> None:
    apart = shutil.copytree(kept_apart[0], tmp_path / "apart")
    content = (apart / "adapter_model.safetensors").read_bytes()
    (apart / "adapter_model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        load(apart)
    (apart / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has adapter_config\.json but neither"):
        load(apart)


def test_saved_by_module_and_by_name(tmp_path: Path) -> None:
    model, settings = tiny_model(), LoraSettings(rank=2, alpha=4)
    add_lora(model, settings)
    save_lora(tmp_path, model, model.state_dict(), {"model.global_adapter.gate_weight"}, settings, "nano")
    stored = load_file(tmp_path / "adapter_model.safetensors")
    whole = {name for name in stored if LORA_MARK not in name}
    assert whole == {
        f"base_model.model.model.global_adapter.{name}" for name in model.model.global_adapter.state_dict()
    }
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "nano"


def test_layers_in_bfloat16(tmp_path: Path) -> None:
    recipe, _ = recipe_on_checkpoint(tmp_path, lora={**LORA, "merge": False, "base_weights": "bfloat16"}, bf16=True)
    out = tmp_path / "run"
    train(write_recipe(tmp_path, recipe), out)
    curve = losses(out / "3")
    assert curve[4] < curve[1]
    stored = load_file(out / "3" / "model" / "adapter_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}


def test_bytes_by_hand() -> None:
    linear = 2 * (4 * 24 * 24 + 3 * 24 * 48)
    for kind, saved in (("float32", 0.0), ("bfloat16", 2.0), ("4bit", 3.4375)):
        settings = LoraSettings(rank=2, base_weights=kind)
        with torch.device("meta"):
            model = SlimeForConditionalGeneration(tiny_config())
            add_lora(model, settings)
        assert bytes_saved(model, settings) == saved * linear


def test_layers_in_four_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    recipe, base = recipe_on_checkpoint(tmp_path, 64, lora={**LORA, "merge": False, "base_weights": "4bit"})
    held: dict[str, tuple[str, torch.dtype]] = {}

    def see(self: SlimeTrainer, *args: Any, **kwargs: Any) -> Any:
        held.update({name: (type(value).__name__, value.dtype) for name, value in self.model.named_parameters()})
        return SlimeTrainer.__mro__[1].train(self, *args, **kwargs)

    monkeypatch.setattr(SlimeTrainer, "train", see)
    out = tmp_path / "run"
    folder = train(write_recipe(tmp_path, recipe), out)
    packed = {name for name, (kind, _) in held.items() if kind == "Params4bit"}
    assert len(packed) == 14
    assert all(".base_layer." in name for name in packed)
    assert {dtype for name, (_, dtype) in held.items() if name not in packed} == {torch.float32}
    curve = losses(out / "3")
    assert curve[4] < curve[1]
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert (logits_of(folder) - logits_of(base)).abs().max() > 1e-3
    merge(folder, tmp_path / "merged")


def test_four_bits_without_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, _ = recipe_on_checkpoint(tmp_path, 64, lora={**LORA, "merge": False, "base_weights": "4bit"})
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="'4bit' needs bitsandbytes, which is not installed"):
        train(write_recipe(tmp_path, recipe), tmp_path / "run")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"lora": {"base_weights": "4bit"}}, "'stages.3.lora.base_weights: 4bit' needs 'merge: false'"),
        ({"lora": {"base_weights": "bfloat16"}}, "'stages.3.lora.base_weights: bfloat16' needs 'bf16: true'"),
        ({"lora": {"base_weights": "int3"}}, "is 'int3', expected float32, bfloat16 or 4bit"),
        ({"lora": {"merge": False}}, "'stages.3.lora.merge: false' needs one base checkpoint: 'model.path'"),
    ],
)
def test_what_does_not_go_together(stage: dict[str, Any], message: str, tmp_path: Path) -> None:
    recipe = records_recipe(tmp_path / "data", **stage)
    with pytest.raises(ConfigError, match=message):
        load_recipe(write_recipe(tmp_path, recipe))


def test_adapters_apart_come_first_among_starts(tmp_path: Path) -> None:
    recipe, _ = recipe_on_checkpoint(tmp_path, lora={**LORA, "merge": False})
    first = recipe["stages"][0]
    recipe["stages"] = [
        {**first, "name": "a", "lora": None},
        first,
        {**first, "name": "b", "lora": None, "start": ["a", "3"]},
    ]
    with pytest.raises(
        ConfigError, match=r"'stages\.b\.start' adds '3', which keeps its adapters apart; name it first"
    ):
        load_recipe(write_recipe(tmp_path, recipe))
