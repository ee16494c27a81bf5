"""What runs, and what gets gradients, in a forward pass of training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.slime_model import SlimeModel
from slime_vlm.model.vision_encoder import encode_views
from tests.conftest import tiny_model
from tests.model.training_batches import TEXT_ROWS, mixed_batch

VISION = ("projector", "global_adapter", "local_compressor")


def quiet_model(**options: Any) -> SlimeForConditionalGeneration:
    """A model in training, without its noise, its encoder frozen as in the paper's stage 3."""
    model = tiny_model(selector_noise=0.0, gate_noise=False, **options).train()
    model.model.vision_tower.requires_grad_(False).eval()
    return model


def gradients(model: SlimeForConditionalGeneration, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**batch, loss_only=True).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def count_calls(module: torch.nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_pre_hook(
        lambda _module, args, kwargs: calls.append(len(kwargs.get("pixel_values", args[0] if args else None))),
        with_kwargs=True,
    )
    return calls


@pytest.mark.parametrize(("per_chunk", "expected"), [(32, [10]), (4, [4, 4, 2])])
def test_views_of_all_rows_are_encoded_together(per_chunk: int, expected: list[int]) -> None:
    model = quiet_model(views_per_chunk=per_chunk)
    # Three images of two, four and one tile in four rows.
    batch = mixed_batch(model)
    encoder = count_calls(model.model.vision_tower)
    compressor = count_calls(model.model.local_compressor)
    model(**batch, loss_only=True)
    assert encoder == expected
    assert compressor == [7]


def test_a_cpu_encodes_one_view_at_a_time_when_nothing_is_trained() -> None:
    model = quiet_model(views_per_chunk=4)
    batch = mixed_batch(model)
    together = model.model.encode_views(batch["pixel_values"])
    encoder = count_calls(model.model.vision_tower)
    alone = model.eval().model.encode_views(batch["pixel_values"])
    assert encoder == [1] * 10
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


def test_the_frozen_encoder_keeps_nothing() -> None:
    model = quiet_model()
    batch = mixed_batch(model)
    assert not model.model.encode_views(batch["pixel_values"]).requires_grad
    saved: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model.encode_views(batch["pixel_values"])
        assert not saved
        model.model.vision_tower.requires_grad_(True)
        assert model.model.encode_views(batch["pixel_values"]).requires_grad
        assert saved


def test_blank_chunks_change_nothing() -> None:
    model = quiet_model()
    model.model.vision_tower.requires_grad_(True)
    views = mixed_batch(model)["pixel_values"]
    found = []
    for least in (1, 5):
        model.zero_grad()
        calls = count_calls(model.model.vision_tower)
        features = encode_views(model.model.vision_tower, views, views_per_chunk=4, least_chunks=least)
        features.square().sum().backward()
        found.append((features.detach(), model.model.vision_tower.embeddings.patch_embedding.weight.grad.clone()))
        assert calls == [4, 4, 2] if least == 1 else calls == [4, 4, 2, 1, 1]
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("selector", ["cosine", "attention"])
@pytest.mark.parametrize("views", ["both", "global", "local"])
def test_a_batch_of_text_gives_zeros_to_what_sees(selector: str, views: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = quiet_model(selector=selector, views=views)
    text = mixed_batch(model, TEXT_ROWS)
    images = set(gradients(model, mixed_batch(model, [[[5, 6], (1, 2), [7, 8, 9]]]))[1])
    loss, found = gradients(model, text)
    monkeypatch.setattr(SlimeModel, "_runs_every_part", lambda _self: False)
    without_loss, without = gradients(model, text)
    assert torch.equal(loss, without_loss)
    for name, gradient in without.items():
        assert torch.equal(found[name], gradient), name
    # What an image would have reached is reached, by zeros.
    assert set(found) == images
    seeing = {name for name in found if name not in without}
    assert {name.split(".")[1] for name in seeing} >= {"projector"}
    assert all(name.startswith(tuple(f"model.{part}." for part in VISION)) for name in seeing)
    assert not any(found[name].any() for name in seeing)


def test_nothing_blank_is_looked_at_in_vain() -> None:
    model = quiet_model()
    text = mixed_batch(model, TEXT_ROWS)
    calls = count_calls(model.model.vision_tower)
    for part in VISION:
        getattr(model.model, part).requires_grad_(False)
    model(**text, loss_only=True)
    model.eval()
    model.model.projector.requires_grad_(True)
    model(**text, loss_only=True)
    assert not calls
    model.train()
    model(**text, loss_only=True)
    assert calls == [2]
