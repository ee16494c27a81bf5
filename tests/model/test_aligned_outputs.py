"""Outputs as long as the inputs (model/aligned_outputs.py), and batches that other trainers build (image_inputs.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import EvalPrediction, Trainer, TrainingArguments

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model.aligned_outputs import source_columns
from slime_vlm.model.image_inputs import images_as_rows, views_as_rows
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from tests.conftest import pad_batch, prompt_ids, tiny_model


def batch(model: SlimeForConditionalGeneration, side: str = "right") -> dict[str, Tensor]:
    """Two rows of unequal length with an image each, answers of three and two tokens."""
    rows = [
        prompt_ids(model.config, [1, 5], (1, 2), [7, 8, 20, 21, 22]),
        prompt_ids(model.config, [1, 9, 10, 11], (2, 1), [12, 4, 6, 13, 23, 24]),
    ]
    inputs = pad_batch(rows, side=side)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] < 20, -100)
    labels = labels.masked_fill(inputs["input_ids"] == model.config.image_token_id, -100)
    generator = torch.Generator().manual_seed(1)
    return {
        **inputs,
        "labels": labels,
        "pixel_values": torch.randn(6, 3, 56, 56, generator=generator),
        "image_grids": torch.tensor([[1, 2], [2, 1]]),
    }


def test_columns_by_hand() -> None:
    # Of seven tokens 2 and 3 were dropped, and the merged row is padded on the left.
    index = torch.tensor([[-1, 0, 1, 4, 5, 6]])
    assert source_columns(index, 7).tolist() == [[1, 2, 2, 2, 3, 4, 5]]
    # Padded on both sides before merging, on the right after it.
    assert source_columns(torch.tensor([[2, 3, 5, -1]]), 7).tolist() == [[0, 0, 0, 1, 1, 2, 2]]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("keep", [False, True])
def test_every_label_is_predicted_one_column_before_it(side: str, keep: bool) -> None:
    model = tiny_model(max_local_tokens=3, keep_position_ids=keep)
    inputs = batch(model, side)
    merged = model(**inputs, output_hidden_states=True)
    model.config.align_outputs = True
    aligned = model(**inputs, output_hidden_states=True)
    assert merged.logits.shape[1] < inputs["input_ids"].shape[1]
    assert aligned.logits.shape[:2] == inputs["input_ids"].shape
    torch.testing.assert_close(aligned.loss, merged.loss)
    torch.testing.assert_close(aligned.labels, inputs["labels"])
    torch.testing.assert_close(aligned.attention_mask, inputs["attention_mask"])
    assert aligned.hidden_states[-1].shape[:2] == inputs["input_ids"].shape

    # What anyone computes from logits and labels alone is the model's loss.
    targets = inputs["labels"][:, 1:]
    shifted = torch.nn.functional.cross_entropy(aligned.logits[:, :-1].flatten(0, 1), targets.flatten())
    torch.testing.assert_close(shifted, merged.loss)
    # Kept tokens have their own logits.
    for row in range(2):
        kept = merged.token_index[row] >= 0
        torch.testing.assert_close(aligned.logits[row][merged.token_index[row][kept]], merged.logits[row][kept])


def test_generation_is_the_same_when_outputs_are_aligned() -> None:
    model = tiny_model(max_local_tokens=3, keep_position_ids=True)
    for side in ("left", "right"):
        inputs = {name: value for name, value in batch(model, side).items() if name != "labels"}
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=5, eos_token_id=None)
        model.config.align_outputs = True
        assert torch.equal(model.generate(**inputs, do_sample=False, max_new_tokens=5, eos_token_id=None), expected)
        model.config.align_outputs = False


def test_scores_of_an_answer_are_those_of_its_generation() -> None:
    # What reinforcement learning relies on: the probability of a token read from logits is the sampler's.
    model = tiny_model(max_local_tokens=3, selector_text="question")
    inputs = batch(model, "left")
    del inputs["labels"]
    asked = torch.zeros_like(inputs["input_ids"])
    asked[:, -2:] = 1
    drawn = model.generate(
        **inputs,
        question_mask=asked,
        do_sample=False,
        max_new_tokens=4,
        eos_token_id=None,
        output_scores=True,
        return_dict_in_generate=True,
    )
    model.config.align_outputs = True
    ids = drawn.sequences
    whole = model(
        input_ids=ids,
        attention_mask=torch.cat([inputs["attention_mask"], torch.ones(2, 4, dtype=torch.long)], dim=1),
        pixel_values=inputs["pixel_values"],
        image_grids=inputs["image_grids"],
        token_type_ids=torch.cat([asked, torch.zeros(2, 4, dtype=torch.long)], dim=1),
    )
    for step in range(4):
        scores = whole.logits[:, ids.shape[1] - 5 + step]
        finite = torch.isfinite(drawn.scores[step])
        torch.testing.assert_close(scores[finite], drawn.scores[step][finite], rtol=1e-4, atol=1e-4)


def test_cut_rows_cannot_be_aligned() -> None:
    with pytest.raises(ConfigError, match="max_sequence_length"):
        tiny_model(align_outputs=True, max_sequence_length=100)


def test_one_row_per_image_and_back() -> None:
    views = torch.randn(3 + 2, 3, 4, 4)
    grids = torch.tensor([[2, 1], [1, 1]])
    rows, sizes = images_as_rows(views, grids, 4)
    assert rows.shape == (2, 3, 3, 4, 4)
    assert sizes.tolist() == [[8, 4], [4, 4]]
    assert torch.equal(rows[1, 2], torch.zeros(3, 4, 4))
    back, back_grids = views_as_rows(rows, None, sizes, 4)
    assert torch.equal(back, views)
    assert torch.equal(back_grids, grids)


def test_samples_that_a_collator_stacked() -> None:
    views = torch.randn(2, 5, 3, 4, 4)
    # Two images a sample, of two tiles and of one, their views one after the other.
    flat, grids = views_as_rows(views, torch.tensor([[[2, 1], [1, 1]], [[1, 1], [1, 2]]]), None, 4)
    assert torch.equal(flat, views.flatten(0, 1))
    assert grids.tolist() == [[2, 1], [1, 1], [1, 1], [1, 2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_sizes": torch.tensor([[56, 50]])}, "multiples of view_size 56"),
        ({"image_grids": torch.tensor([[9, 9]])}, "prepare both with the same processor"),
        ({}, "image_grids is missing"),
    ],
)
def test_image_inputs_that_do_not_fit(changes: dict[str, Tensor], message: str) -> None:
    model = tiny_model()
    ids = torch.tensor([prompt_ids(model.config, [1], (1, 1), [7])])
    with pytest.raises(InputError, match=message):
        model(input_ids=ids, pixel_values=torch.zeros(1, 2, 3, 56, 56), **changes)


def test_both_layouts_give_the_same_logits() -> None:
    model = tiny_model(max_local_tokens=3, selector_text="question")
    inputs = batch(model)
    del inputs["labels"]
    asked = torch.zeros_like(inputs["input_ids"])
    asked[0, 12:14] = 1
    asked[1, 20:22] = 1
    expected = model(**inputs, question_mask=asked)
    rows, sizes = images_as_rows(inputs["pixel_values"], inputs["image_grids"], 56)
    found = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        pixel_values=rows,
        image_sizes=sizes,
        token_type_ids=torch.where(asked == 1, 1, 2),
    )
    torch.testing.assert_close(found.logits, expected.logits)


def test_the_selector_sees_the_prompt_by_token_types_as_by_labels() -> None:
    model = tiny_model(max_local_tokens=3)
    inputs = batch(model)
    labels = inputs.pop("labels")
    types = torch.where(labels == -100, 2, 0)
    expected = model(**inputs, labels=labels)
    found = model(**inputs, token_type_ids=types)
    assert all(map(torch.equal, found.kept_local_tokens, expected.kept_local_tokens))
    # TRL labels every token of a conversation. The selector then has the types alone to go by.
    found = model(**inputs, labels=inputs["input_ids"], token_type_ids=types)
    assert all(map(torch.equal, found.kept_local_tokens, expected.kept_local_tokens))


def test_labels_of_whole_rows_need_token_types() -> None:
    model = tiny_model(max_local_tokens=3)
    inputs = batch(model)
    inputs["labels"] = inputs["input_ids"]
    with pytest.raises(InputError, match="batch_layout to 'images'"):
        model(**inputs)


class Samples(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Samples of one image each, as the processor gives them, for the default collator."""

    def __init__(self, model: SlimeForConditionalGeneration) -> None:
        row = prompt_ids(model.config, [1, 5], (1, 2), [7, 8, 20, 21, 22])
        ids = torch.tensor(row)
        self.sample = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.randn(3, 3, 56, 56),
            "image_grids": torch.tensor([[1, 2]]),
            "labels": torch.where((ids >= 20) & (ids != model.config.image_token_id), ids, -100),
        }

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.sample


def test_trainer_with_the_default_collator_and_metrics(tmp_path: Path) -> None:
    model = tiny_model(max_local_tokens=3, align_outputs=True)
    seen: list[EvalPrediction] = []

    def share_right(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        logits, labels = prediction.predictions, prediction.label_ids
        right = logits[:, :-1].argmax(-1) == labels[:, 1:]
        return {"share": float(right[labels[:, 1:] != -100].mean())}

    arguments: dict[str, Any] = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "learning_rate": 0.01,
        "max_steps": 60,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    samples = Samples(model)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=samples,
        eval_dataset=samples,
        compute_metrics=share_right,
    )
    trainer.train()
    metrics = trainer.evaluate()
    assert isinstance(seen[0].predictions, np.ndarray)
    assert seen[0].predictions.shape[:2] == seen[0].label_ids.shape == (3, len(samples.sample["input_ids"]))
    assert metrics["eval_share"] == 1.0


def test_a_trainer_that_keeps_the_labels_gets_the_columns_of_the_inputs() -> None:
    model = tiny_model(max_local_tokens=3, selector_text="all")
    inputs = batch(model)
    shape = inputs["input_ids"].shape
    labels = inputs.pop("labels")
    for training in (False, True):
        model.train(training)
        assert model(**inputs, num_items_in_batch=5).logits.shape[:2] == shape
        assert model(**inputs).logits.shape[1] < shape[1]
        # With labels, the loss of a training step needs no more logits than there are merged tokens.
        length = model(**inputs, labels=labels, num_items_in_batch=5).logits.shape[1]
        assert length < shape[1] if training else length == shape[1]
    # A caller's word counts.
    model.eval()
    assert model(**inputs, num_items_in_batch=5, align_outputs=False).logits.shape[1] < shape[1]


def test_text_that_a_limit_cut_is_counted_and_has_no_labels() -> None:
    model = tiny_model(max_local_tokens=3)
    inputs = batch(model)
    whole = model(**inputs)
    length = whole.logits.shape[1]
    # The second row is the longer one: of its two answer tokens one is cut.
    model.config.max_sequence_length = length - 1
    merged = model(**inputs)
    with pytest.warns(UserWarning, match="max_sequence_length cut 1 tokens of text"):
        aligned = model(**inputs, align_outputs=True)
    torch.testing.assert_close(aligned.loss, merged.loss)
    assert aligned.labels[1].tolist() == [*inputs["labels"][1, :-1].tolist(), -100]
    assert torch.equal(aligned.labels[0], inputs["labels"][0])
