"""The loss over labelled tokens alone: the plain loss, at a fraction of its logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Gemma2Config

from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.text_loss import text_loss
from tests.conftest import tiny_model
from tests.model.training_batches import mixed_batch


def gradients(model: SlimeForConditionalGeneration, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_by_hand() -> None:
    # Logits are the hidden states themselves; the words to come are 0, after equal logits, and 1, after 1 and 3.
    hidden = torch.tensor([[[0.0, 0.0], [1.0, 3.0], [9.0, 9.0]]])
    first, second = math.log(2), math.log1p(math.exp(-2))
    for labels, num_items, expected in (
        ([1, 0, 1], None, (first + second) / 2),
        ([1, -100, 1], None, second),
        ([1, 0, 1], 4, (first + second) / 4),
    ):
        loss = text_loss(lambda states: states, hidden, torch.tensor([labels]), num_items)
        assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
@pytest.mark.parametrize("num_items", [None, 7, torch.tensor(7)])
def test_value_and_gradients_of_the_plain_loss(chunk: int, num_items: Any) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 11, (3, 8))
    labels[0, :4] = labels[2, 5:] = -100
    head = torch.nn.Linear(6, 11, bias=False)
    results = []
    for plain in (True, False):
        torch.manual_seed(1)
        hidden = torch.randn(3, 8, 6, requires_grad=True)
        head.zero_grad()
        if plain:
            logits, target = head(hidden)[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
            loss = F.cross_entropy(logits, target, reduction="mean" if num_items is None else "sum")
            loss = loss if num_items is None else loss / 7
        else:
            loss = text_loss(head, hidden, labels, num_items, tokens_per_chunk=chunk)
        loss.backward()
        assert head.weight.grad is not None
        results.append((loss.detach(), hidden.grad, head.weight.grad.clone()))
    torch.testing.assert_close(results[1], results[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("bounded", [False, True])
def test_loss_only_is_the_loss_of_the_model(bounded: bool) -> None:
    options: dict[str, Any] = {"final_logit_softcapping": 5.0, "head_dim": 8} if bounded else {}
    text = tiny_model().config.text_config
    if bounded:
        text = Gemma2Config(**{**text.to_diff_dict(), **options, "pad_token_id": 0})
    model = tiny_model(text_config=text)
    batch = mixed_batch(model)
    full, alone = model(**batch), model(**batch, loss_only=True)
    assert alone.logits is None
    assert torch.equal(alone.labels, full.labels)
    torch.testing.assert_close(alone.loss, full.loss, atol=1e-6, rtol=1e-6)
    expected, found = gradients(model, full.loss), gradients(model, alone.loss)
    assert found.keys() == expected.keys()
    assert len(found) > 20
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_the_head_sees_labelled_tokens_only() -> None:
    model = tiny_model()
    batch = mixed_batch(model)
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda _head, args, _logits: rows.append(args[0].shape[:-1].numel()))
    labels = model(**batch, loss_only=True).labels
    assert rows == [int((labels[:, 1:] != -100).sum())]
    assert rows[0] < labels.numel() / 4


def test_no_more_logits_than_a_chunk() -> None:
    head, rows = torch.nn.Linear(4, 9, bias=False), []
    head.register_forward_hook(lambda _head, args, _logits: rows.append(len(args[0])))
    hidden = torch.randn(1, 8, 4, requires_grad=True)
    loss = text_loss(head, hidden, torch.arange(8)[None], tokens_per_chunk=3)
    assert rows == [3, 3, 1]
    loss.backward()
    # Once more for the gradient.
    assert sorted(rows) == [1, 1, 3, 3, 3, 3]


def test_nothing_to_learn_is_a_loss_of_zero() -> None:
    head = torch.nn.Linear(4, 9, bias=False)
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    for num_items in (None, 0, torch.tensor(0)):
        loss = text_loss(head, hidden, torch.full((2, 3), -100), num_items)
        loss.backward()
        assert loss.item() == 0
        assert head.weight.grad is not None
        assert not head.weight.grad.any()
