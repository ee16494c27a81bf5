"""Ways to damage LoRA weights and their base, and what is then said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.published.checkpoint_damage import Code, change_json, weights_of

# What is done to a folder of LoRA weights, beside which its base lies, and a pattern of the line that is then printed.
ADAPTER_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no_base_given": (
        lambda folder: change_json(folder / "adapter_config.json", base_model_name_or_path=None),
        "holds adapters alone, .* pass it as --base",
    ),
    "base_not_found": (
        lambda folder: change_json(folder / "adapter_config.json", base_model_name_or_path="nobody/nothing"),
        "LoRA on 'nobody/nothing', which is neither a folder nor in the hub's cache; pass it as --base",
    ),
    "base_without_weights": (lambda folder: weights_of(folder.parent / "base").unlink(), "base has no weights"),
    "base_of_another_depth": (
        lambda folder: save_file(
            {name: value for name, value in load_file(weights_of(folder.parent / "base")).items() if ".1." not in name},
            weights_of(folder.parent / "base"),
        ),
        r"changes 2 tensor\(s\) that the base does not have.*pass the base",
    ),
    "base_of_another_width": (
        lambda folder: save_file(
            load_file(weights_of(folder.parent / "base"))
            | {"model.layers.0.self_attn.q_proj.weight": torch.ones(8, 8)},
            weights_of(folder.parent / "base"),
        ),
        r"the base has it as \[8, 8\]; pass the base",
    ),
    "base_with_another_vocabulary": (
        lambda folder: save_file(
            load_file(weights_of(folder.parent / "base")) | {"lm_head.weight": torch.ones(8, 24)},
            weights_of(folder.parent / "base"),
        ),
        "lm_head.weight the shape .* is .*base the base that it was trained on",
    ),
    "rank_mismatch": (lambda folder: change_json(folder / "adapter_config.json", r=8), "expected the rank 8 in it"),
    "rank_zero": (lambda folder: change_json(folder / "adapter_config.json", r=0), "r 0, expected a positive number"),
    "unknown_kind_of_lora": (
        lambda folder: change_json(folder / "adapter_config.json", bias="all"),
        "bias 'all', expected 'none'; merge it with peft first",
    ),
    "dora_without_lengths": (
        lambda folder: change_json(folder / "adapter_config.json", use_dora=True),
        r"lacks the lengths of rows \(DoRA\) for .* has use_dora True; fetch both again",
    ),
    "a_base_that_was_changed": (
        lambda folder: change_json(folder / "adapter_config.json", init_lora_weights="pissa"),
        "init_lora_weights 'pissa', which changes the base before training; merge it with peft first",
    ),
    "ranks_that_do_not_fit": (
        lambda folder: change_json(folder / "adapter_config.json", rank_pattern={"q_proj": 5}),
        "expected the rank 5 in it",
    ),
    "patterns_of_garbage": (
        lambda folder: change_json(folder / "adapter_config.json", alpha_pattern={"(": 5}),
        "alpha_pattern .*, expected values by pattern of names",
    ),
    "not_a_lora": (lambda folder: change_json(folder / "adapter_config.json", peft_type="IA3"), "expected LORA"),
    "adapter_config_of_garbage": (
        lambda folder: (folder / "adapter_config.json").write_text("?"),
        "adapter_config.json cannot be read",
    ),
    "one_half_missing": (
        lambda folder: save_file(
            {
                name: value
                for name, value in load_file(folder / "adapter_model.safetensors").items()
                if "layers.0.mlp.down_proj.lora_B" not in name
            },
            folder / "adapter_model.safetensors",
        ),
        "lacks one of A and B for model.language_model.layers.0.mlp.down_proj.weight",
    ),
    "other_weights_under_its_name": (
        lambda folder: save_file({"lm_head.weight": torch.ones(2)}, folder / "adapter_model.safetensors"),
        "are not low-rank weights: lm_head.weight",
    ),
    "adapter_weights_missing": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "neither adapter_model.safetensors nor adapter_model.bin",
    ),
    "trained_parts_missing": (
        lambda folder: (folder / "non_lora_trainables.bin").unlink(),
        r"lacks \d+ tensor\(s\).*projector",
    ),
    "trained_parts_with_code": (
        lambda folder: torch.save({"a": Code(folder / "ran")}, folder / "non_lora_trainables.bin"),
        "possibly code, which is never run",
    ),
    "vision_encoder_without_weights": (
        lambda folder: weights_of(folder / "vision_tower").unlink(),
        "neither it nor its base has vision weights",
    ),
}
