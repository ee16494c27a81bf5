"""The whole model: batching, padding, caching, saving, selection and gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, SegformerConfig, Trainer, TrainingArguments
from transformers.generation import BaseStreamer

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration, SlimeModel
from tests.conftest import pad_batch, prompt_ids, tiny_config, tiny_model

Part = list[int] | tuple[int, int]
# Eight rows with images of different grids, one of them with two images, and rows of text alone.
ROWS: list[list[Part]] = [
    [[1, 5], (2, 1), [7, 8, 9]],
    [[1, 4, 4, 4], (2, 3), [11]],
    [[1, 21, 22, 23, 24, 25]],
    [[1], (1, 2), [30, 31]],
    [[1], (1, 7), [30, 31, 32]],
    [[1, 9], (3, 1), [12], (1, 2), [13]],
    [[1, 40], (2, 2), [41]],
    [[1, 50], (5, 1), [51, 52, 53, 54, 55, 56]],
    [[1, 10], (1, 3), [11, 12]],
    [[1, 33]],
]


def batch_of(config: SlimeConfig, rows: list[list[Part]], side: str = "right") -> dict[str, Tensor]:
    """Inputs of a batch; the pixels of an image depend on nothing but its row and place."""
    inputs = pad_batch([prompt_ids(config, *row) for row in rows], side)
    pixels, grids = [], []
    for row in rows:
        for place, part in enumerate(row):
            if isinstance(part, tuple):
                generator = torch.Generator().manual_seed(100 * ROWS.index(row) + place if row in ROWS else place)
                pixels.append(torch.randn(1 + part[0] * part[1], 3, 56, 56, generator=generator))
                grids.append(part)
    if pixels:
        inputs |= {"pixel_values": torch.cat(pixels), "image_grids": torch.tensor(grids)}
    return inputs


def real_logits(model: SlimeForConditionalGeneration, inputs: dict[str, Tensor], **kwargs: Any) -> list[Tensor]:
    with torch.no_grad():
        outputs = model(**inputs, **kwargs)
    return [logits[mask != 0] for logits, mask in zip(outputs.logits, outputs.attention_mask, strict=True)]


MODES: list[dict[str, Any]] = [
    {},
    {"selector": "attention", "selector_top_p": 0.5},
    {"selector": "none"},
    {"views": "global"},
    {"views": "local", "local_merge": "flat"},
    {"gate": "mlp", "projector_type": "mlp"},
    {"gate": "attention"},
    {"local_compression": False},
    {"max_local_tokens": 3},
    {"page_positions": True, "keep_position_ids": True, "projector_vocabulary": [5, 7]},
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_batch_is_one_by_one(mode: dict[str, Any], side: str) -> None:
    model = tiny_model(**mode)
    together = real_logits(model, batch_of(model.config, ROWS, side))
    for row, logits in zip(ROWS, together, strict=True):
        alone = real_logits(model, batch_of(model.config, [row]))[0]
        torch.testing.assert_close(logits, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("trains", [True, False])
def test_views_of_a_batch_are_one_call_in_training(model: SlimeForConditionalGeneration, trains: bool) -> None:
    """Without training, a CPU is fastest with one view at a time."""
    calls: list[int] = []
    model.model.vision_tower.register_forward_pre_hook(
        lambda _module, _args, kwargs: calls.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    inputs = batch_of(model.config, ROWS)
    model.config.views_per_chunk = 1000
    real_logits(model.train(trains), inputs)
    count = len(inputs["pixel_values"])
    assert calls == ([count] if trains else [1] * count)


@pytest.mark.parametrize(("views", "expected"), [("global", 8), ("local", 28)])
def test_views_that_are_left_out_are_not_encoded(views: str, expected: int) -> None:
    model = tiny_model(views=views)
    inputs = batch_of(model.config, ROWS[:1] + ROWS[3:9])
    calls: list[int] = []
    encode = model.model.encode_views
    model.model.encode_views = lambda pixels: (calls.append(len(pixels)), encode(pixels))[1]  # type: ignore[method-assign]
    real_logits(model, inputs)
    assert sum(calls) == expected


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model: SlimeForConditionalGeneration, side: str) -> None:
    plain = batch_of(model.config, ROWS[:1])
    padded = {name: tensor.clone() for name, tensor in plain.items()}
    for name, fill in (("input_ids", 0), ("attention_mask", 0)):
        gap = torch.full((1, 5), fill)
        parts = [gap, plain[name]] if side == "left" else [plain[name], gap]
        padded[name] = torch.cat(parts, dim=1)
    torch.testing.assert_close(real_logits(model, padded)[0], real_logits(model, plain)[0])


# Selection --------------------------------------------------------------------------------------------------------


def test_output_tells_what_was_selected(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, ROWS)
    with torch.no_grad():
        outputs = model(**inputs)
    images = len(inputs["image_grids"])
    for name in ("adapter_weights", "selection_scores", "selection_probs", "kept_local_tokens", "vision_tokens"):
        assert len(outputs[name]) == images
    for (rows, cols), kept in zip(inputs["image_grids"].tolist(), outputs.kept_local_tokens, strict=True):
        assert kept.shape == (4 * rows * cols,)
    dropped = sum(int((~kept).sum()) for kept in outputs.kept_local_tokens)
    assert dropped > 0
    assert int(outputs.attention_mask.sum()) == int(inputs["attention_mask"].sum()) - dropped
    # Where a token came from: the text tokens of every row are all there, in order.
    for row, places in enumerate(outputs.token_index):
        ids = inputs["input_ids"][row][places[places >= 0]]
        text = [token for part in ROWS[row] if isinstance(part, list) for token in part]
        assert ids[ids != model.config.image_token_id].tolist() == text


def test_select_alone_agrees_with_forward(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, ROWS)
    with torch.no_grad():
        outputs = model(**inputs)
        tokens = model.encode_images(inputs["pixel_values"], inputs["image_grids"])
        selection = model.select(tokens, inputs["input_ids"], inputs["attention_mask"])
    assert selection is not None
    for image, kept in enumerate(outputs.kept_local_tokens):
        assert torch.equal(selection.kept[image, : len(kept)], kept)
    assert tiny_model(views="global").select(tokens, inputs["input_ids"]) is None


def test_selecting_by_the_text_alone_agrees_with_the_prompt(model: SlimeForConditionalGeneration) -> None:
    ids = torch.tensor([prompt_ids(model.config, [5, 6, 7], (2, 1), [8, 9])])
    views = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = model.encode_image(views, (2, 1))
        whole = model.select([tokens], ids)
        alone = model.model.select_by_text(tokens, torch.tensor([5, 6, 7, 8, 9]))
    assert whole is not None
    torch.testing.assert_close(alone.probs, whole.probs)
    assert torch.equal(alone.kept, whole.kept)


def test_image_tokens_serve_many_questions(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, ROWS[:1])
    with torch.no_grad():
        tokens = model.encode_image(inputs["pixel_values"], (2, 1))
        for question in ([7, 8, 9], [20, 21]):
            ids = torch.tensor([prompt_ids(model.config, [1, 5], (2, 1), question)])
            fresh = model(input_ids=ids, pixel_values=inputs["pixel_values"], image_grids=inputs["image_grids"])
            reused = model(input_ids=ids, vision_tokens=[tokens])
            assert torch.equal(fresh.logits, reused.logits)
    assert tokens.detach().to(torch.float64).local_tokens.dtype == torch.float64


def test_local_tokens_can_be_chosen_by_hand(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, ROWS[:1])
    kept = torch.tensor([True, False] * 4)
    with torch.no_grad():
        outputs = model(**inputs, kept_local_tokens=[kept])
    assert torch.equal(outputs.kept_local_tokens[0], kept)
    assert outputs.logits.shape[1] == inputs["input_ids"].shape[1] - 4


def labelled(config: SlimeConfig) -> dict[str, Tensor]:
    inputs = batch_of(config, [ROWS[0], ROWS[2]])
    labels = inputs["input_ids"].clone()
    labels[labels == config.image_token_id] = -100
    labels[inputs["attention_mask"] == 0] = -100
    labels[0, :2] = -100
    return {**inputs, "labels": labels}


def test_prompt_selector_never_sees_the_answer() -> None:
    for text, sees in (("prompt", False), ("all", True)):
        model = tiny_model(selector_text=text)
        inputs = labelled(model.config)
        changed = {name: tensor.clone() for name, tensor in inputs.items()}
        changed["input_ids"][0, -1] = changed["labels"][0, -1] = 44
        with torch.no_grad():
            before, after = model(**inputs), model(**changed)
        assert torch.equal(before.selection_scores[0], after.selection_scores[0]) != sees


def test_question_selector_sees_the_question_alone() -> None:
    model = tiny_model(selector_text="question")
    inputs = batch_of(model.config, ROWS[:1])
    mask = torch.zeros_like(inputs["input_ids"])
    mask[0, -2:] = 1
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, 0] = 33
    with torch.no_grad():
        before, after = model(**inputs, question_mask=mask), model(**changed, question_mask=mask)
        assert torch.equal(before.selection_scores[0], after.selection_scores[0])
        with pytest.raises(InputError, match="question_mask is missing"):
            model(**inputs)


@pytest.mark.parametrize("selector", ["cosine", "attention"])
def test_a_selector_without_any_text_keeps_its_share(selector: str) -> None:
    model = tiny_model(selector=selector, selector_text="question", max_local_tokens=3)
    inputs = batch_of(model.config, ROWS[:1])
    with torch.no_grad():
        outputs = model(**inputs, question_mask=torch.zeros_like(inputs["input_ids"]))
    assert outputs.selection_probs[0].sum().item() == pytest.approx(1.0)
    assert int(outputs.kept_local_tokens[0].sum()) == 3


def test_fixed_budget_makes_the_length_known() -> None:
    model = tiny_model(max_local_tokens=3)
    with torch.no_grad():
        for question in ([7], [8, 9], [20, 21, 22]):
            ids = torch.tensor([prompt_ids(model.config, [1], (2, 1), question)])
            inputs = batch_of(model.config, ROWS[:1]) | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            assert model(**inputs).logits.shape[1] == 1 + 16 + 1 + 3 + len(question)


def test_stages_may_change_the_config_of_a_built_model(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, ROWS[:1])
    with torch.no_grad():
        model.config.selector_top_p = 1.0
        assert model(**inputs).kept_local_tokens[0].all()
        model.config.gate = "mlp"
        assert model(**inputs).adapter_weights is None


def test_options_beyond_the_paper() -> None:
    model = tiny_model(page_positions=True, keep_position_ids=True, selector_top_p=0.3)
    inputs = batch_of(model.config, ROWS[:1])
    with torch.no_grad():
        outputs = model(**inputs)
    assert torch.equal(outputs.position_ids, outputs.token_index)
    positions = model.model.page_position_embeddings(2, 1)
    assert positions.shape == (8, 24)
    with torch.no_grad():
        model.model.page_positions.linear.weight.zero_()
        without = model(**inputs)
    # The selector's scores do not see the positions, the language model does.
    assert torch.equal(without.selection_scores[0], outputs.selection_scores[0])
    assert not torch.allclose(without.logits, outputs.logits)
    with pytest.raises(InputError, match="no page positions"):
        tiny_model().model.page_position_embeddings(1, 1)


def test_hierarchical_encoder_as_vision_tower() -> None:
    segformer = SegformerConfig(
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_encoder_blocks=2,
        sr_ratios=[2, 1],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    )
    model = tiny_model(vision_config=segformer, view_size=56, patch_size=8, vision_feature_layer=-1)
    assert model.config.num_global_tokens == 49
    assert torch.isfinite(torch.cat(real_logits(model, batch_of(model.config, ROWS)))).all()


# Training ---------------------------------------------------------------------------------------------------------


def test_loss_is_the_token_mean_over_the_batch(model: SlimeForConditionalGeneration) -> None:
    inputs = labelled(model.config)
    outputs = model(**inputs)
    logits, labels = outputs.logits[:, :-1].flatten(0, 1), outputs.labels[:, 1:].flatten()
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100))
    summed = model(**inputs, num_items_in_batch=torch.tensor(4))
    torch.testing.assert_close(summed.loss, outputs.loss * int((labels != -100).sum()) / 4)


@pytest.mark.parametrize("selector", ["cosine", "attention"])
def test_gradients_reach_everything_but_the_selector(selector: str) -> None:
    model = tiny_model(selector=selector).train()
    model(**labelled(model.config)).loss.backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    last_layer = {name for name in silent if "encoder.layers.2." in name or "post_layernorm" in name}
    assert {name for name in silent - last_layer if not name.startswith("model.selector.")} <= {
        # A softmax does not see what is added to all keys alike.
        "model.local_compressor.query_attention.k_proj.bias",
        "model.global_adapter.query_attention.k_proj.bias",
        "model.vision_tower.encoder.layers.0.self_attn.k_proj.bias",
        "model.vision_tower.encoder.layers.1.self_attn.k_proj.bias",
    }
    if selector == "attention":
        assert any(name.startswith("model.selector.") for name in silent)


def test_text_only_batches_train(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, [ROWS[2], ROWS[9]])
    outputs = model.train()(**inputs, labels=inputs["input_ids"])
    outputs.loss.backward()
    assert outputs.vision_tokens is None
    assert model.lm_head.weight.grad is not None


def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(gate_noise=False, selector_noise=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**labelled(model.config)).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_eight_samples_can_be_learnt_by_heart() -> None:
    model = tiny_model(gate_noise=False, selector_noise=0.0, selector_top_p=1.0).train()
    rows: list[list[Part]] = [[[1], (1, 2), [5, 10 + i]] for i in range(8)]
    inputs = batch_of(model.config, rows)
    inputs["pixel_values"] = torch.randn(inputs["pixel_values"].shape, generator=torch.Generator().manual_seed(3))
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -1] = inputs["input_ids"][:, -1]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_trainer_trains_and_evaluates(tmp_path: Path, model: SlimeForConditionalGeneration) -> None:
    pytest.importorskip("accelerate")
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        prediction_loss_only=True,
    )

    def collate(rows: list[list[Part]]) -> dict[str, Tensor]:
        inputs = batch_of(model.config, rows)
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == model.config.image_token_id, -100)
        return {**inputs, "labels": labels.masked_fill(inputs["attention_mask"] == 0, -100)}

    before = model.lm_head.weight.detach().clone()
    trainer = Trainer(model, arguments, data_collator=collate, train_dataset=ROWS, eval_dataset=ROWS[:4])
    assert trainer.train().training_loss > 0
    assert not torch.equal(model.lm_head.weight, before)
    assert trainer.evaluate()["eval_loss"] > 0


# Generation -------------------------------------------------------------------------------------------------------

GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", [{}, {"keep_position_ids": True, "selector_top_p": 0.5}], ids=str)
def test_batch_generates_as_one_by_one(mode: dict[str, Any], side: str) -> None:
    model = tiny_model(**mode)
    inputs = batch_of(model.config, ROWS, side)
    together = model.generate(**inputs, **GREEDY)
    assert torch.equal(together[:, :-6], inputs["input_ids"])
    for row, tokens in zip(ROWS, together[:, -6:], strict=True):
        assert torch.equal(model.generate(**batch_of(model.config, [row]), **GREEDY)[0, -6:], tokens)


@pytest.mark.parametrize(
    "options", [{"use_cache": False}, {"cache_implementation": "static"}, {"num_beams": 1}], ids=str
)
def test_cache_changes_nothing(model: SlimeForConditionalGeneration, options: dict[str, Any]) -> None:
    inputs = batch_of(model.config, ROWS[:6], "left")
    assert torch.equal(model.generate(**inputs, **GREEDY, **options), model.generate(**inputs, **GREEDY))


def test_generation_is_the_argmax_of_forward(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, ROWS[1:2])
    new = model.generate(**inputs, **GREEDY)[0, -6:].tolist()
    # Feeding the answer back must not change what is selected, so give the selection of the prompt.
    with torch.no_grad():
        kept = model(**inputs).kept_local_tokens
        for length in range(6):
            ids = torch.cat([inputs["input_ids"], torch.tensor([new[:length]], dtype=torch.long)], dim=1)
            images = {name: inputs[name] for name in ("pixel_values", "image_grids")}
            logits = model(input_ids=ids, **images, kept_local_tokens=kept).logits
            assert int(logits[0, -1].argmax()) == new[length]


def test_placeholders_are_never_generated(model: SlimeForConditionalGeneration) -> None:
    with torch.no_grad():
        # The placeholder's logit is made the largest wherever the others are negative on average.
        model.lm_head.weight[model.config.image_token_id] = -4 * model.lm_head.weight.sum(dim=0)
    new = model.generate(**batch_of(model.config, ROWS), **{**GREEDY, "max_new_tokens": 10})[:, -10:]
    assert not (new == model.config.image_token_id).any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_beams_of_a_batch_are_those_one_by_one(model: SlimeForConditionalGeneration, side: str) -> None:
    options = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    rows = [ROWS[5], ROWS[2], ROWS[0]]
    together = model.generate(**batch_of(model.config, rows, side), **options)[:, -6:]
    for index, row in enumerate(rows):
        alone = model.generate(**batch_of(model.config, [row]), **options)[:, -6:]
        assert torch.equal(together[2 * index : 2 * index + 2], alone)


def test_generation_from_image_tokens_and_streaming(model: SlimeForConditionalGeneration) -> None:
    class Streamer(BaseStreamer):
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.tokens.append(-1)

    inputs = batch_of(model.config, ROWS[:1])
    with torch.no_grad():
        tokens = model.encode_images(inputs["pixel_values"], inputs["image_grids"])
    streamer = Streamer()
    streamed = model.generate(input_ids=inputs["input_ids"], vision_tokens=tokens, streamer=streamer, **GREEDY)
    assert torch.equal(streamed, model.generate(**inputs, **GREEDY))
    assert streamer.tokens == [*streamed[0].tolist(), -1]


# Saving, loading, errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode",
    [{}, {"selector": "attention", "page_positions": True, "projector_vocabulary": [5, 7]}, {"projector_type": "mlp"}],
    ids=str,
)
def test_saved_is_loaded(tmp_path: Path, mode: dict[str, Any]) -> None:
    model = tiny_model(**mode)
    model.save_pretrained(tmp_path)
    again, info = SlimeForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    inputs = batch_of(model.config, ROWS)
    for left, right in zip(real_logits(again.eval(), inputs), real_logits(model, inputs), strict=True):
        assert torch.equal(left, right)


def test_auto_classes_know_the_model(tmp_path: Path, model: SlimeForConditionalGeneration) -> None:
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, SlimeConfig)
    assert config.token_layout == model.config.token_layout
    assert config.vision_config.to_dict() == model.config.vision_config.to_dict()
    assert isinstance(AutoModelForImageTextToText.from_pretrained(tmp_path), SlimeForConditionalGeneration)


def test_missing_weights_are_initialised(tmp_path: Path) -> None:
    tiny_model(projector_type="mlp").save_pretrained(tmp_path)
    config = tiny_config(projector_vocabulary=None)
    model = SlimeForConditionalGeneration.from_pretrained(tmp_path, config=config)
    fresh = SlimeModel(config).global_adapter
    adapter = model.model.global_adapter
    assert adapter is not None
    assert fresh is not None
    assert adapter.gate_weight.eq(0).all()
    torch.testing.assert_close(adapter.query_attention.position_table, fresh.query_attention.position_table)
    assert adapter.query_attention.query.std().item() == pytest.approx(0.02, rel=0.3)


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    text = tiny_config().text_config
    text.tie_word_embeddings = True
    model = tiny_model(text_config=text)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    again = SlimeForConditionalGeneration.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_bfloat16_runs(model: SlimeForConditionalGeneration) -> None:
    logits = real_logits(model.to(torch.bfloat16), batch_of(model.config, ROWS))
    assert all(part.isfinite().all() for part in logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gate": "soft"}, "gate is 'soft', expected one of mixture, mlp, attention"),
        ({"num_local_queries": 5}, "expected a square"),
        ({"selector_top_p": 1.5}, "expected a probability"),
        ({"top_p": 0.5}, "expected selector_top_p"),
        ({"max_tiles": 0}, "at least 1"),
        ({"view_size": 55}, "not a multiple"),
        ({"max_local_tokens": 0}, "at least 1"),
        ({"max_local_tokens": 5, "selector": "none"}, "max_local_tokens is 5, but this model has no selector"),
        ({"max_local_tokens": 5, "local_compression": False}, "max_local_tokens is 5, but this model has no selector"),
        ({"vision_feature_select_strategy": "full"}, "is 'full', expected one of default"),
        ({"selector_temperature": 0.0}, "positive"),
        ({"projector_type": "query_attention"}, "equal widths"),
        ({"vision_config": SegformerConfig()}, "patch_size is not set"),
    ],
    ids=str,
)
def test_config_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**fields)


def test_input_errors(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, ROWS[:1])
    with pytest.raises(InputError, match="image_grids is missing"):
        model(**{**inputs, "image_grids": None})
    with pytest.raises(InputError, match="expected 4 for the grids"):
        model(**{**inputs, "image_grids": torch.tensor([[1, 3]])})
    with pytest.raises(InputError, match="image placeholders, expected"):
        model(**{**inputs, "input_ids": inputs["input_ids"][:, :-5], "attention_mask": None})
    with pytest.raises(InputError, match="image placeholders, expected 0"):
        model(input_ids=inputs["input_ids"])
    with pytest.raises(InputError, match="either input_ids or inputs_embeds"):
        model()


def test_tokens_of_every_image_are_counted(model: SlimeForConditionalGeneration) -> None:
    """Image by image: all sums below may be right, and one image would read the tokens of another."""
    inputs = batch_of(model.config, [ROWS[0], ROWS[3]])
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.no_grad():
        tokens = model.encode_images(inputs["pixel_values"], inputs["image_grids"])
    first, second = tokens
    assert first.local_tokens is not None
    assert second.local_tokens is not None
    doubled = replace(first, local_tokens=torch.cat([first.local_tokens] * 2))
    short = replace(second, local_tokens=second.local_tokens[:-1])
    long = replace(first, local_tokens=torch.cat([first.local_tokens, second.local_tokens[-1:]]))
    for given, image in (
        ([doubled, second], 0),
        ([long, short], 0),
        ([first, short], 1),
        ([first, replace(second, local_tokens=None)], 1),
        ([first, replace(second, global_tokens=None)], 1),
    ):
        with pytest.raises(InputError, match=rf"image {image} has .* expected 16 and 8 for "):
            model(input_ids=ids, attention_mask=mask, vision_tokens=given)
        with pytest.raises(InputError, match=rf"image {image} has .* expected 16 and 8 for "):
            model.select(given, ids, mask)
    with pytest.raises(InputError, match="image placeholders, expected 25 for 1 image"):
        model(input_ids=ids, attention_mask=mask, vision_tokens=tokens[:1])

    only_global = tiny_model(views="global")
    inputs = batch_of(only_global.config, [ROWS[0], ROWS[3]])
    with pytest.raises(InputError, match="image 0 has 16 global and 8 local tokens, expected 16 and 0"):
        only_global(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], vision_tokens=tokens)


def test_kept_tokens_of_every_image_are_counted(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, [ROWS[0], ROWS[3]])
    whole = torch.ones(8, dtype=torch.bool)
    for kept, message in (
        ([whole, torch.ones(50, dtype=torch.bool)], r"image 1 is torch.bool \[50\], expected torch.bool \[8\]"),
        ([whole[:7], torch.ones(9, dtype=torch.bool)], r"image 0 is torch.bool \[7\], expected torch.bool \[8\]"),
        ([whole.long(), whole], r"image 0 is torch.int64 \[8\]"),
        ([whole], r"1 mask\(s\), expected 2"),
        ([whole] * 3, r"3 mask\(s\), expected 2"),
    ):
        with pytest.raises(InputError, match=message):
            model(**inputs, kept_local_tokens=kept)


def test_a_mask_of_pairs_is_for_text_alone(model: SlimeForConditionalGeneration) -> None:
    inputs = batch_of(model.config, ROWS[:1])
    length = inputs["input_ids"].shape[1]
    pairs = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    for given in (inputs, {"input_ids": inputs["input_ids"]}):
        with pytest.raises(InputError, match=r"attention_mask has shape .*, expected \[rows, tokens\] with images"):
            model(**{**given, "attention_mask": pairs})
    text = batch_of(model.config, [ROWS[2]])
    length = text["input_ids"].shape[1]
    pairs = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with torch.no_grad():
        torch.testing.assert_close(model(**{**text, "attention_mask": pairs}).logits, model(**text).logits)
