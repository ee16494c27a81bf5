"""Rows end to end: every sample as if it were alone, whatever the language model and its attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PretrainedConfig

from slime_vlm.errors import InputError
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.packed_attention import PACKED_ATTENTION, use_packed_attention
from slime_vlm.model.token_merging import MergedRows, pack_rows
from tests.checkpoints.pretrained_parts.families import LANGUAGE_MODELS
from tests.conftest import tiny_model
from tests.model.training_batches import ROWS, mixed_batch


def implementation(model: SlimeForConditionalGeneration) -> str:
    return str(model.model.language_model.config._attn_implementation)


def test_end_to_end_by_hand() -> None:
    rows = MergedRows(
        input_ids=torch.tensor([[1, 2, 3], [0, 4, 5]]),
        attention_mask=torch.tensor([[1, 1, 1], [0, 1, 1]]),
        position_ids=torch.tensor([[0, 1, 2], [0, 0, 1]]),
        labels=torch.tensor([[7, 8, 9], [-100, 7, 8]]),
        token_index=torch.tensor([[0, 2, 3], [-1, 0, 1]]),
    )
    packed, embeddings = pack_rows(rows, torch.arange(6.0).reshape(2, 3, 1))
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5]]
    assert packed.attention_mask.tolist() == [[1, 1, 1, 1, 1]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    # The first token of a sample is not foretold from another sample.
    assert packed.labels is not None
    assert packed.labels.tolist() == [[-100, 8, 9, -100, 8]]
    assert packed.token_index.tolist() == [[0, 2, 3, 0, 1]]
    assert embeddings.flatten().tolist() == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_packed_loss_is_the_unpacked_one(name: str) -> None:
    text: PretrainedConfig = LANGUAGE_MODELS[name]
    model = tiny_model(text_config=text, selector_top_p=0.5)
    batch = mixed_batch(model)
    unpacked = model(**batch, loss_only=True)
    lengths = unpacked.attention_mask.sum(1)
    assert len(set(lengths.tolist())) > 2
    ways = []
    for way in ("as loaded", "apart", "eager"):
        if way == "apart":
            use_packed_attention(model.model.language_model)
        elif way == "eager":
            model.model.language_model.set_attn_implementation("eager")
        ways.append(implementation(model))
        packed = model(**batch, loss_only=True, pack=True)
        torch.testing.assert_close(packed.loss, unpacked.loss, atol=1e-5, rtol=1e-5)
        assert packed.labels.shape == (1, int(lengths.sum()))
    plain = name in ("llama", "smollm2", "qwen2", "qwen3", "gemma")
    assert (PACKED_ATTENTION in ways) == plain


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_gradients_are_the_unpacked_ones(apart: bool, checkpointing: bool) -> None:
    model = tiny_model(selector_noise=0.0, gate_noise=False).train()
    found: list[dict[str, Tensor]] = []
    for pack in (False, True):
        if pack and apart:
            use_packed_attention(model.model.language_model)
        if pack and checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(**mixed_batch(model), loss_only=True, pack=pack).loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("apart", [False, True])
def test_samples_do_not_see_each_other(apart: bool) -> None:
    model = tiny_model()
    if apart:
        use_packed_attention(model.model.language_model)
    states: list[Tensor] = []
    for word in (5, 40):
        batch = mixed_batch(model, [[[word, 6, 7]], *ROWS[1:]])
        states.append(model.model(**batch, pack=True).last_hidden_state[0])
    assert not torch.allclose(states[0][:3], states[1][:3])
    torch.testing.assert_close(states[0][3:], states[1][3:], atol=1e-6, rtol=0)


def test_packed_attention_reads_padded_rows_as_ever() -> None:
    model = tiny_model()
    batch = mixed_batch(model)
    before = model(**batch)
    use_packed_attention(model.model.language_model)
    after = model(**batch)
    real = before.attention_mask.bool()
    torch.testing.assert_close(after.logits[real], before.logits[real])


def test_packed_attention_is_not_saved(tmp_path: Any) -> None:
    model = tiny_model()
    use_packed_attention(model.model.language_model)
    model.save_pretrained(tmp_path)
    assert PACKED_ATTENTION not in (tmp_path / "config.json").read_text()
    again = SlimeForConditionalGeneration.from_pretrained(tmp_path)
    assert implementation(again) == "sdpa"


def test_what_cannot_be_packed() -> None:
    model = tiny_model()
    batch = mixed_batch(model)
    with pytest.raises(InputError, match="pack needs input_ids, no cache and positions that are counted after merging"):
        model(**batch, position_ids=torch.arange(batch["input_ids"].shape[1])[None], pack=True)
    model.config.keep_position_ids = True
    with pytest.raises(InputError, match="keep_position_ids"):
        model(**batch, pack=True)
