"""Used in ways that would give a wrong answer without an error, the model refuses or gives the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.labels import IGNORED_LABEL
from tests.conftest import prompt_ids, tiny_config, tiny_model
from tests.tiny_text import tiny_processor


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    ids = torch.tensor([prompt_ids(model.config, [1, 5], (1, 2), [7, 8, 9])])
    return {"input_ids": ids, "pixel_values": torch.randn(3, 3, 56, 56), "image_grids": torch.tensor([[1, 2]])}


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
@pytest.mark.parametrize("selector", ["cosine", "attention"])
def test_scores_that_are_not_finite_are_refused(selector: str, damage: float) -> None:
    model = tiny_model(selector=selector)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = damage
    with pytest.raises(InputError, match="scores are not finite"):
        model(**inputs_of(model))


@pytest.mark.parametrize("loss_only", [False, True])
def test_rows_without_labels_have_no_loss(loss_only: bool) -> None:
    model = tiny_model()
    inputs = inputs_of(model)
    loss = model(**inputs, labels=torch.full_like(inputs["input_ids"], IGNORED_LABEL), loss_only=loss_only).loss
    assert loss.item() == 0.0
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_labels_of_another_length_are_refused() -> None:
    model = tiny_model()
    inputs = inputs_of(model)
    with pytest.raises(InputError, match="labels have shape"):
        model(**inputs, labels=inputs["input_ids"][:, 1:])


def test_pixels_that_are_not_normalised_are_refused() -> None:
    model = tiny_model()
    grey = torch.randint(0, 256, (3, 3, 56, 56), dtype=torch.uint8)
    with pytest.raises(InputError, match=r"of type torch\.uint8, expected normalised"):
        model(**{**inputs_of(model), "pixel_values": grey})


def test_a_tuple_when_asked() -> None:
    model = tiny_model()
    inputs = inputs_of(model)
    with torch.no_grad():
        output, values = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(values, tuple)
    assert torch.equal(values[0], output.logits)


@pytest.mark.parametrize("name", ["selecter_top_p", "max_tile", "num_local_querys"])
def test_a_misspelt_field_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is not a field of SlimeConfig, expected '"):
        tiny_config(**{name: 1})


@pytest.mark.parametrize("auto", [SlimeConfig, AutoConfig])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"selecter_top_p": 0.5}, "'selecter_top_p' is not a field of SlimeConfig, expected 'selector_top_p'"),
        ({"max_tile": 3}, "'max_tile' is not a field of SlimeConfig, expected 'max_tiles'"),
        ({"top_p": 0.5}, "top_p is a sampling parameter, expected selector_top_p"),
        ({"selector_top_p": 2.0}, "selector_top_p is 2.0, expected a probability"),
    ],
)
def test_a_wrong_change_of_a_saved_config_is_named(
    auto: Any, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """transformers drops unknown changes without a word, and checks no value of known ones."""
    tiny_config().save_pretrained(tmp_path)
    for more in ({}, {"return_unused_kwargs": True}):
        with pytest.raises(ConfigError, match=message):
            auto.from_pretrained(tmp_path, **change, **more)


def test_right_changes_of_a_saved_config_are_made(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    config, unused = SlimeConfig.from_pretrained(tmp_path, max_tiles=3, device_map="x", return_unused_kwargs=True)
    assert config.max_tiles == 3
    assert unused == {"device_map": "x"}
    assert SlimeConfig.from_pretrained(tmp_path, some_new_thing=3).to_dict() == tiny_config().to_dict() | {
        "auto_map": config.auto_map
    }


def test_fields_of_other_versions_are_kept() -> None:
    assert tiny_config(output_router_logits=False, some_new_thing=3).some_new_thing == 3


def test_padding_to_a_multiple() -> None:
    processor = tiny_processor()
    ids = processor(text=["ab", "abcde"], pad_to_multiple_of=8)["input_ids"]
    assert ids.shape[1] % 8 == 0
    assert processor(text=["ab", "abcde"])["input_ids"].shape[1] % 8
    with pytest.raises(InputError, match="truncation_side 'left'"):
        processor(text="abc", truncation=True, max_length=2, truncation_side="left")
