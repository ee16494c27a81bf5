"""What a step computes, by hand (training/planning/step_flops.py)."""

from __future__ import annotations

from typing import Any

import pytest

from slime_vlm.training.lora import add_lora
from slime_vlm.training.planning.step_flops import UNITS, flops_of, forward_flops, meta_model, training_flops
from slime_vlm.training.recipe import DataSource, LoraSettings, Stage
from slime_vlm.training.stages import apply_stage
from tests.conftest import tiny_config, tiny_model

ALL = ["projector", "gate", "global_adapter", "local_compressor", "selector", "language_model"]


def stage(*trains: str, **values: Any) -> Stage:
    return Stage("s", list(trains), DataSource(records="x"), 1e-3, 1, **values)


def test_forward_by_hand() -> None:
    flops = forward_flops(meta_model(tiny_config()))
    width, inner, layers = 24, 48, 2
    # Query, key, value and output projections, and the three of the MLP; two operations a weight.
    assert flops["tokens"] == 2 * layers * (4 * width * width + 3 * width * inner)
    # Scores and weighted sum: two operations a number for each pair.
    assert flops["pairs"] == 4 * layers * width
    assert flops["logits"] == 2 * width * 64
    # Two layers, as published: from 16 features to the language model's width.
    assert flops["projected"] == 2 * (16 * width + width * width)
    # Patches of 14 pixels, then two of three layers (the last is not read) on 16 patches and a class token.
    patches, vision = 16, 16
    layer = 2 * (patches + 1) * (4 * vision * vision + 2 * vision * 32) + 4 * (patches + 1) ** 2 * vision
    assert flops["views"] == 2 * patches * 3 * 14 * 14 * vision + 2 * layer
    assert flops["tiles"] > 0
    assert flops["adapted"] > flops["tiles"], "sixteen queries rather than four"


def test_backward_where_something_trains() -> None:
    model = tiny_model()
    forward = forward_flops(meta_model(model.config))
    apply_stage(model, stage("projector"))
    flops = training_flops(model)
    # Forward alone before the projector, all three passes in it, no weights after it.
    assert {unit: flops[unit] / forward[unit] for unit in UNITS} == pytest.approx(
        {"views": 1, "adapted": 1, "tiles": 1, "projected": 3, "tokens": 2, "pairs": 3, "logits": 2}
    )
    apply_stage(model, stage(*ALL))
    flops = training_flops(model)
    assert {unit: flops[unit] / forward[unit] for unit in UNITS} == pytest.approx(
        {"views": 1, "adapted": 3, "tiles": 3, "projected": 3, "tokens": 3, "pairs": 3, "logits": 3}
    )
    apply_stage(model, stage("vision_tower", *ALL))
    assert training_flops(model)["views"] == 3 * forward["views"]


def test_low_rank_weights_come_on_top() -> None:
    model = tiny_model()
    forward = forward_flops(meta_model(model.config))
    chosen = stage("language_model", lora=LoraSettings(rank=2, alpha=4))
    add_lora(model, chosen.lora)  # type: ignore[arg-type]
    apply_stage(model, chosen)
    flops = training_flops(model)
    low_rank = sum(p.numel() for name, p in model.model.language_model.named_parameters() if ".lora_" in name)
    assert flops["tokens"] == 2 * forward["tokens"] + 3 * 2 * low_rank
    assert flops["pairs"] == 3 * forward["pairs"]


def test_work_is_a_sum() -> None:
    work = dict(zip(UNITS, range(1, 8), strict=True))
    assert flops_of({**work}, dict.fromkeys(UNITS, 2.0)) == 2 * sum(range(1, 8))
