from __future__ import annotations

from pathlib import Path

import torch

from slime_vlm.loading import load
from slime_vlm.training.lora import LORA_MARK, add_lora, merge_lora
from slime_vlm.training.recipe import LoraSettings
from slime_vlm.training.run import train

from ..conftest import tiny_model
from .mini import losses, records_recipe, write_recipe


def test_merged_logits_equal_unmerged() -> None:
    model = tiny_model()
    names = set(model.state_dict())
    ids = torch.randint(4, 60, (2, 9))
    before = model(input_ids=ids).logits
    lora = add_lora(model, LoraSettings(rank=4, alpha=8, dropout=0.0))
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if LORA_MARK in name:
                parameter.normal_(std=0.2)
    unmerged = model.eval()(input_ids=ids).logits
    assert (unmerged - before).abs().max() > 1e-2
    merge_lora(lora)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(model(input_ids=ids).logits, unmerged, atol=1e-5, rtol=1e-5)


def test_a_stage_with_adapters_loads_like_any_other(tmp_path: Path) -> None:
    # Gradient checkpointing as well, which the paper's recipes use.
    stage = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}, "gradient_checkpointing": True, "steps": 12}
    out = tmp_path / "run"
    model_folder = train(write_recipe(tmp_path, records_recipe(tmp_path / "data", **stage)), out)
    model, _ = load(model_folder, device="cpu")
    assert not [name for name in model.state_dict() if LORA_MARK in name or "base_layer" in name]
    curve = losses(out / "3")
    assert curve[12] < curve[1]
