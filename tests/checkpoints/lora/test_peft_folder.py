"""Adapter folders as peft and TRL write them, without config and processor (checkpoints/lora/adapter_folder.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import slime_vlm
from slime_vlm.checkpoints.lora.merge import merge
from slime_vlm.errors import CheckpointError

INVOICE = Path(__file__).parents[3] / "examples" / "invoice.png"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter on nano, and the logits of nano with it."""
    torch.manual_seed(0)
    model, processor = slime_vlm.load("nano", device="cpu")
    folder = tmp_path_factory.mktemp("adapter")
    settings = LoraConfig(r=4, target_modules=r".*language_model.*\.[qv]_proj", init_lora_weights=False)
    with_adapter = get_peft_model(model, settings).eval()
    with_adapter.save_pretrained(folder)
    assert not (folder / "config.json").exists()
    return folder, logits(with_adapter, processor)


@torch.no_grad()
def logits(model: Any, processor: Any) -> torch.Tensor:
    content = [{"type": "image", "image": slime_vlm.open_image(INVOICE)}, {"type": "text", "text": "What is due?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    found: torch.Tensor = model(**inputs).logits
    return found


def test_load_takes_the_recorded_base(adapted: tuple[Path, Any]) -> None:
    folder, expected = adapted
    model, processor = slime_vlm.load(folder, device="cpu")
    plain = logits(*slime_vlm.load("nano", device="cpu"))
    torch.testing.assert_close(logits(model, processor), expected, rtol=1e-3, atol=1e-3)
    assert (plain - expected).abs().max() > 0.1


def test_merge_writes_a_whole_checkpoint(adapted: tuple[Path, Any], tmp_path: Path) -> None:
    folder, expected = adapted
    merge(folder, tmp_path / "merged")
    # nano is stored in half precision, and so are the sums.
    assert (logits(*slime_vlm.load(tmp_path / "merged", device="cpu")) - expected).abs().max() < 0.05


def test_modules_that_were_trained_whole_are_named_by_their_ends(tmp_path: Path) -> None:
    model, processor = slime_vlm.load("nano", device="cpu")
    settings = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["projector"], init_lora_weights=False)
    with_adapter = get_peft_model(model, settings).eval()
    with torch.no_grad():
        for name, parameter in with_adapter.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(1.5)
    expected = logits(with_adapter, processor)
    with_adapter.save_pretrained(tmp_path)
    # In the type of the weights, not in that of the base: rounding may change which local tokens are kept.
    loaded, processor = slime_vlm.load(tmp_path, device="cpu")
    torch.testing.assert_close(logits(loaded, processor), expected, rtol=1e-3, atol=1e-3)
    base = slime_vlm.load("nano", device="cpu")[0].model.projector
    for name, parameter in loaded.model.projector.named_parameters():
        torch.testing.assert_close(parameter, 1.5 * base.get_parameter(name), rtol=0, atol=0)


KINDS: dict[str, dict[str, Any]] = {
    "ranks by layer": {"rank_pattern": {r"layers\.1\.self_attn\.q_proj": 2, "v_proj": 6}},
    "alphas by layer": {"alpha_pattern": {"v_proj": 3, "layers.0.self_attn.q_proj": 64}},
    "both, rank-stabilised": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 5}, "use_rslora": True},
    "DoRA": {"use_dora": True},
    "DoRA with ranks": {"use_dora": True, "rank_pattern": {"v_proj": 2}, "use_rslora": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_adapters_are_what_peft_computes(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, processor = slime_vlm.load("nano", device="cpu")
    settings = LoraConfig(
        r=4, lora_alpha=12, target_modules=r".*language_model.*\.[qv]_proj", init_lora_weights=False, **KINDS[kind]
    )
    adapted = get_peft_model(model, settings).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "magnitude" in name:
                parameter.mul_(torch.linspace(0.7, 1.4, len(parameter)))
    expected = logits(adapted, processor)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded, processor = slime_vlm.load(tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(logits(loaded, processor), expected, rtol=1e-3, atol=1e-3)
    # Every weight, also those that these logits hardly depend on.
    whole = adapted.merge_and_unload().state_dict()
    for name, parameter in loaded.state_dict().items():
        torch.testing.assert_close(parameter, whole[name], rtol=1e-4, atol=1e-5, msg=name)
    report = merge(tmp_path / "adapter", tmp_path / "merged")
    assert report.difference <= report.limit


def test_an_adapter_that_changed_its_base_is_refused(tmp_path: Path) -> None:
    """PiSSA takes the first product off the base. Added to the stored base, its weights gave other answers."""
    model, _ = slime_vlm.load("nano", device="cpu")
    settings = LoraConfig(r=4, target_modules=r".*layers\.0.*\.q_proj", init_lora_weights="pissa")
    get_peft_model(model, settings).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="init_lora_weights 'pissa', which changes the base"):
        slime_vlm.load(tmp_path)


def test_a_base_that_is_gone(adapted: tuple[Path, Any], tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in adapted[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "/gone"}))
    with pytest.raises(CheckpointError, match=r"is a LoRA on '/gone', which is neither a folder nor"):
        slime_vlm.load(folder)
    assert slime_vlm.load("nano")
