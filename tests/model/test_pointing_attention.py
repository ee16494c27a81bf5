"""Attention that tells where its last layer looks (model/pointing_attention.py)."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel

from slime_vlm.errors import ConfigError
from slime_vlm.model.pointing_attention import use_pointing_attention


def llama(**fields: int) -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        **{"num_key_value_heads": 2, **fields},
    )
    return LlamaModel(config).eval()


def test_as_eager_attention_with_padding_and_a_cache() -> None:
    model = llama()
    ids = torch.randint(0, 20, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    eager = llama()
    eager.set_attn_implementation("eager")
    with torch.inference_mode():
        expected = eager(ids, attention_mask=mask, output_attentions=True)
        use_pointing_attention(model)
        pointing: list[torch.Tensor] = []
        found = model(ids, attention_mask=mask, pointing=pointing)
        real = mask.bool()
        torch.testing.assert_close(found.last_hidden_state[real], expected.last_hidden_state[real])
        (weights,) = pointing
        torch.testing.assert_close(weights[real], expected.attentions[-1][:, :2].mean(dim=1)[real])
        first = model(ids[:, :4], attention_mask=mask[:, :4], pointing=[])
        later: list[torch.Tensor] = []
        model(ids[:, 4:], attention_mask=mask, past_key_values=first.past_key_values, pointing=later)
    torch.testing.assert_close(later[0][0], weights[0, 4:])


def test_without_a_list_nothing_is_told() -> None:
    model = llama()
    use_pointing_attention(model)
    with torch.inference_mode():
        plain = llama()(torch.arange(5)[None]).last_hidden_state
        torch.testing.assert_close(model(torch.arange(5)[None]).last_hidden_state, plain)


def test_windows_are_refused() -> None:
    config = MistralConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        sliding_window=4,
    )
    with pytest.raises(ConfigError, match="plain attention"):
        use_pointing_attention(MistralModel(config))
