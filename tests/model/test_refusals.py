"""Used in ways that would give a wrong answer without an error, the model refuses or gives the right one."""

from __future__ import annotations

from collections.abc import Callable
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


def changed(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda inputs: {**inputs, name: change(inputs[name])}


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "pixels of numpy": (changed("pixel_values", lambda t: t.numpy()), "pixel_values is of type ndarray, expected a t"),
    "a list of pixels": (
        changed("pixel_values", lambda t: [t]),
        "pixel_values is of type list, expected",
    ),
    "one image": (changed("pixel_values", lambda t: t[0]), r"pixel_values has shape \[3, 56, 56\], expected views"),
    "colours last": (
        changed("pixel_values", lambda t: t.movedim(1, -1)),
        r"has shape \[3, 56, 56, 3\], expected",
    ),
    "grey": (changed("pixel_values", lambda t: t[:, :1]), r"has shape \[3, 1, 56, 56\], expected views"),
    "a list of grids": (changed("image_grids", lambda t: t.tolist()), "image_grids is of type list"),
    "one grid": (changed("image_grids", lambda t: t[0]), r"image_grids has shape \[2\], expected \[images, 2\]"),
    "a list of ids": (changed("input_ids", lambda t: t.tolist()), "input_ids is of type list"),
    "text": (lambda inputs: {"input_ids": "What?"}, "input_ids is of type str"),
    "one row of ids": (changed("input_ids", lambda t: t[0]), r"input_ids has shape \[30\], expected \[rows, tokens\]"),
    "no ids": (lambda inputs: {"input_ids": torch.zeros(1, 0).long()}, r"input_ids has shape \[1, 0\]"),
    "float ids": (changed("input_ids", lambda t: t.float()), "of type torch.float32, expected token ids"),
    "uint8 ids": (changed("input_ids", lambda t: t.to(torch.uint8)), "of type torch.uint8, expected token ids"),
    "a large id": (
        changed("input_ids", lambda t: t.masked_fill(t == 7, 64)),
        "input_ids hold 64, expected ids from 0 to 63",
    ),
    "a negative id": (changed("input_ids", lambda t: t.masked_fill(t == 7, -100)), "input_ids hold -100, expected ids"),
    "a list of masks": (changed("attention_mask", lambda t: t.tolist()), "attention_mask is of type list"),
    "one mask": (changed("attention_mask", lambda t: t[0]), r"attention_mask has shape \[30\], expected"),
    "an empty mask": (changed("attention_mask", lambda t: t * 0), "attention_mask is 0 on every token of row 0"),
    "a mask to be added": (changed("attention_mask", lambda t: (t - 1.0) * 1e9 - t), "other values than 0 and 1"),
    "a mask of numbers": (changed("attention_mask", lambda t: t * 2), "attention_mask holds other values than 0 and 1"),
    "a list of questions": (changed("question_mask", lambda t: t.tolist()), "question_mask is of type list"),
    "features as tokens": (lambda i: {**i, "vision_tokens": [torch.ones(2, 2)]}, "vision_tokens hold a Tensor"),
    "embeddings of one row": (lambda inputs: {"inputs_embeds": torch.ones(3, 24)}, "inputs_embeds"),
    "embeddings of a wrong width": (
        lambda inputs: {"inputs_embeds": torch.ones(1, 3, 5)},
        r"expected \[rows, tokens, 24\]",
    ),
}


@pytest.mark.parametrize("generates", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_inputs_are_named_in_one_line(name: str, generates: bool) -> None:
    model = tiny_model()
    inputs = inputs_of(model)
    ones = torch.ones_like(inputs["input_ids"])
    change, message = REFUSED[name]
    wrong = change({**inputs, "attention_mask": ones, "question_mask": ones})
    with pytest.raises(InputError, match=message) as caught, torch.no_grad():
        model.generate(**wrong, max_new_tokens=2) if generates else model(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_columns", [29, 32])
def test_a_mask_of_another_length_is_refused(num_columns: int) -> None:
    model = tiny_model()
    with pytest.raises(InputError, match=rf"attention_mask has shape \[1, {num_columns}\], expected \[1, 30\]"):
        model(**inputs_of(model), attention_mask=torch.ones(1, num_columns))


def test_an_empty_row_is_refused_and_an_empty_part_behind_a_cache_is_not() -> None:
    model = tiny_model().eval()
    ids, mask = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 1, 1], [0, 0, 0]])
    with pytest.raises(InputError, match="attention_mask is 0 on every token of row 1"):
        model(input_ids=ids, attention_mask=mask)
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True).past_key_values
        whole = torch.cat([torch.ones_like(mask), mask], dim=1)
        assert model(input_ids=ids, attention_mask=whole, past_key_values=cache).logits.isfinite().all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1.0]], "labels are of type torch.float32, expected token ids"),
        ([[64]], "labels hold 64, expected ids from 0 to 63"),
    ],
)
def test_labels_that_are_no_ids_are_refused(labels: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model()(input_ids=torch.tensor([[1]]), labels=torch.tensor(labels))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.int32])
def test_masks_of_ones_of_any_type_are_equal(kind: torch.dtype) -> None:
    model = tiny_model().eval()
    inputs = inputs_of(model)
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(model(**inputs, attention_mask=torch.ones(1, 30, dtype=kind)).logits, expected)


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
