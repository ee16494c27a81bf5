"""What trains in a stage: exact names, the published flags, gradients, frozen statistics (paper section 3.4)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slime_vlm.checkpoints.published.weight_names import is_unused, native_names
from slime_vlm.errors import ConfigError
from slime_vlm.training.lora import add_lora
from slime_vlm.training.parts import PART_PREFIXES, parameters_of
from slime_vlm.training.recipe import LoraSettings, Stage, load_recipe
from slime_vlm.training.stages import apply_stage, frozen_modules, trainable_table
from tests.conftest import pad_batch, prompt_ids, tiny_model

ROOT = Path(__file__).parents[2]
PAPER = ("slime-vicuna-7b", "slime-vicuna-13b", "slime-llama3-8b")

PROJECTOR = {f"model.projector.linear_{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")}
GATE = {"model.global_adapter.gate_weight"}
QUERY_ATTENTION = {
    "query",
    "norm_query.weight",
    "norm_query.bias",
    "norm_input.weight",
    "norm_input.bias",
    "norm_output.weight",
    "norm_output.bias",
    "q_proj.weight",
    "q_proj.bias",
    "k_proj.weight",
    "k_proj.bias",
    "v_proj.weight",
    "v_proj.bias",
    "out_proj.weight",
    "out_proj.bias",
}
GLOBAL_ADAPTER = {f"model.global_adapter.query_attention.{name}" for name in QUERY_ATTENTION}
LOCAL_COMPRESSOR = {f"model.local_compressor.query_attention.{name}" for name in QUERY_ATTENTION}
LLAMA_LAYER = {
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
}
LANGUAGE_MODEL = {
    "lm_head.weight",
    "model.language_model.embed_tokens.weight",
    "model.language_model.norm.weight",
    *(f"model.language_model.layers.{layer}.{name}" for layer in (0, 1) for name in LLAMA_LAYER),
}
TRAINABLE = {
    "1a": PROJECTOR | GATE,
    "1b": GLOBAL_ADAPTER | GATE,
    "2": LOCAL_COMPRESSOR,
    "3": PROJECTOR | GATE | GLOBAL_ADAPTER | LOCAL_COMPRESSOR | LANGUAGE_MODEL,
}
FLAGGED = {
    "1a": "stage1a_global_projector",
    "1b": "stage1b_global_attention",
    "2": "stage2_local",
    "3": "stage3_full",
}


def paper_stage(name: str, recipe: str = "slime-vicuna-7b") -> Stage:
    return next(s for s in load_recipe(recipe).stages if s.name == name)


@pytest.mark.parametrize("recipe", PAPER)
@pytest.mark.parametrize("name", list(TRAINABLE))
def test_trainable_parameters_by_name(recipe: str, name: str) -> None:
    stage = paper_stage(name, recipe)
    model = tiny_model(**stage.config)
    rates = apply_stage(model, stage)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == TRAINABLE[name]
    assert rates == dict.fromkeys(TRAINABLE[name], stage.learning_rate)


@pytest.mark.parametrize("name", list(TRAINABLE))
def test_trainable_parameters_are_the_published_ones(name: str) -> None:
    path = ROOT / "tests" / "parity" / "data" / "training" / "trainable_as_flagged.json"
    for stages in json.loads(path.read_text()).values():
        published = stages[FLAGGED[name]]["requires_grad"]
        flagged = {ours for entry in published for ours in native_names(entry)}
        # Flagged as published but without a gradient: position tables are buffers here, noise weights do not exist.
        assert {entry for entry in published if is_unused(entry)} <= {"model.mm_projector.w_noise"}
        tables = {ours for ours in flagged if ours.endswith("position_table")}
        assert flagged - tables == TRAINABLE[name]


@pytest.mark.parametrize("name", list(TRAINABLE))
def test_gradients_reach_exactly_what_trains(name: str) -> None:
    stage = paper_stage(name)
    model = tiny_model(**stage.config)
    apply_stage(model, stage)
    row = prompt_ids(model.config, [5, 6], (1, 2), [7, 8, 9])
    batch = pad_batch([row])
    views = 1 if model.config.views == "global" else 3
    labels = batch["input_ids"].clone()
    labels[:, :-2] = -100
    model.train()
    pixels = torch.randn(views, 3, 56, 56)
    model(**batch, pixel_values=pixels, image_grids=torch.tensor([[1, 2]]), labels=labels).loss.backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    # In stages 1a and 1b the gate is open, as published, but stands on one adapter.
    assert reached == TRAINABLE[name] - (GATE if name in ("1a", "1b") else set())


def test_rates_of_parts() -> None:
    stage = paper_stage("3")
    rates = apply_stage(tiny_model(), replace(stage, part_learning_rates={"gate": 0.5}))
    assert {name for name, rate in rates.items() if rate == 0.5} == GATE


def test_low_rank_adapters_train_in_place_of_the_language_model() -> None:
    stage = paper_stage("3-lora", "slime-vicuna-7b-lora")
    model = tiny_model()
    add_lora(model, LoraSettings(rank=2, alpha=4))
    rates = apply_stage(model, stage)
    lora = {name for name in rates if ".lora_" in name}
    layers = {name for name in LLAMA_LAYER if "proj" in name}
    stem = "model.language_model.layers.{}.{}"
    assert lora == {
        stem.format(i, name.replace(".weight", f".lora_{side}.default.weight"))
        for i in (0, 1)
        for name in layers
        for side in "AB"
    }
    assert set(rates) - lora == PROJECTOR | GATE | GLOBAL_ADAPTER | LOCAL_COMPRESSOR
    assert {rates[name] for name in lora} == {1e-4}
    assert {rates[name] for name in set(rates) - lora} == {2e-5}


def test_every_parameter_belongs_to_one_part() -> None:
    model = tiny_model(selector="attention", page_positions=True, projector_vocabulary=[3, 4])
    parts = [part for part in PART_PREFIXES if part != "projector_tables"]
    names = [name for part in parts for name in parameters_of(model, part)]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert parameters_of(model, "projector_tables") == ["model.projector.table"]


def test_a_missing_part_is_an_error() -> None:
    stage = replace(paper_stage("3"), trains=["page_positions"])
    with pytest.raises(ConfigError, match="stage '3' trains 'page_positions', which this model does not have"):
        apply_stage(tiny_model(), stage)


def test_frozen_children() -> None:
    model, stage = tiny_model(), replace(paper_stage("2"), gradient_checkpointing=False)
    apply_stage(model, stage)
    frozen = {"vision_tower", "projector", "global_adapter", "selector", "language_model"}
    assert set(frozen_modules(model, stage)) == frozen
    # Layers checkpoint in training mode only.
    checkpointing = replace(stage, gradient_checkpointing=True)
    assert set(frozen_modules(model, checkpointing)) == frozen - {"language_model"}


def test_the_table_counts_every_part() -> None:
    model, stage = tiny_model(), paper_stage("2")
    apply_stage(model, stage)
    table = trainable_table(model, stage)
    counts = [int(cell.replace(",", "")) for cell in table.columns[1].cells]
    assert sum(counts) == sum(p.numel() for p in model.parameters())
    opened = [cell for cell in table.columns[2].cells if cell != "frozen"]
    assert opened == [f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}"]
