"""A cache that grows in place against the dynamic one of transformers: the same numbers, and no copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.growing_cache import GrowingLayer, cache_after, growing_cache
from tests.conftest import prompt_ids, tiny_model

ROWS, HEADS, WIDTH = 3, 2, 4


def new_tokens(count: int, rows: int = ROWS, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, HEADS, count, WIDTH, **options), torch.randn(rows, HEADS, count, WIDTH, **options)


def test_tokens_are_written_behind_those_before_them() -> None:
    cache = growing_cache()
    keys = torch.arange(4.0).reshape(1, 1, 2, 2)
    cache.update(keys, -keys, 0)
    layer = cache.layers[0]
    where = layer.keys.data_ptr()
    found, values = cache.update(torch.tensor([[[[7.0, 8.0]]]]), torch.tensor([[[[9.0, 9.0]]]]), 0)
    assert found.tolist() == [[[[0, 1], [2, 3], [7, 8]]]]
    assert values.tolist() == [[[[0, -1], [-2, -3], [9, 9]]]]
    assert layer.keys.data_ptr() == where
    assert (cache.get_seq_length(), cache.get_mask_sizes(1, 0), cache.is_compileable) == (3, (4, 0), False)


def test_every_change_gives_what_the_dynamic_cache_gives() -> None:
    torch.manual_seed(0)
    caches = {"found": growing_cache(), "expected": DynamicCache()}
    rows = ROWS

    def add(count: int) -> None:
        for layer in range(2):
            keys, values = new_tokens(count, rows)
            found, expected = (cache.update(keys, values, layer) for cache in caches.values())
            for one, other in zip(found, expected, strict=True):
                assert torch.equal(one, other)

    def change(name: str, *arguments: Any) -> None:
        for cache in caches.values():
            getattr(cache, name)(*arguments)

    add(5)
    for order in ([2, 0, 0], [1, 1, 2], [0, 1, 2]):
        change("reorder_cache", torch.tensor(order))
        add(1)
    change("crop", -3)
    add(70)
    change("reorder_cache", torch.tensor([0, 0, 2]))
    add(2)
    change("batch_select_indices", torch.tensor([2, 0]))
    rows = 2
    add(1)
    change("batch_repeat_interleave", 2)
    rows = 4
    add(1)
    change("reorder_cache", torch.tensor([3, 1]))
    rows = 2
    add(1)
    for way in (copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))):
        caches = {name: way(cache) for name, cache in caches.items()}
        add(1)
    assert [cache.get_seq_length() for cache in caches.values()] == [82, 82]
    change("reset")
    add(2)
    assert all(isinstance(layer, GrowingLayer) for layer in caches["found"].layers)


def test_reordering_leaves_a_single_spare_tensor_for_all_layers() -> None:
    cache = growing_cache()
    for layer in range(4):
        cache.update(*new_tokens(3), layer)
    cache.reorder_cache(torch.tensor([1, 0, 0]))
    assert len({id(layer._spare) for layer in cache.layers}) == 1
    assert len(cache.layers[0]._spare) == 1


def test_caches_that_start_from_the_same_tokens_leave_them_alone() -> None:
    held = [new_tokens(3, 1) for _ in range(2)]
    before = copy.deepcopy(held)
    caches = [cache_after(held), cache_after(held)]
    ends = [new_tokens(1, 1), new_tokens(1, 1)]
    for cache, end in zip(caches, ends, strict=True):
        cache.update(*end, 0)
    for cache, end in zip(caches, ends, strict=True):
        assert torch.equal(cache.layers[0].keys, torch.cat([held[0][0], end[0]], dim=2))
    caches[0].crop(-2)
    caches[0].update(*new_tokens(1, 1), 0)
    assert all(
        torch.equal(a, b) for pair, kept in zip(held, before, strict=True) for a, b in zip(pair, kept, strict=True)
    )


def test_gradients_reach_every_token() -> None:
    cache, keys = growing_cache(), torch.ones(1, 1, 2, 2, requires_grad=True)
    cache.update(keys, keys, 0)
    found, _ = cache.update(2 * keys, keys, 0)
    found.sum().backward()
    assert keys.grad is not None
    assert keys.grad.tolist() == [[[[3, 3], [3, 3]]]]


def test_a_cache_of_inference_mode_goes_on_outside() -> None:
    cache = growing_cache()
    with torch.inference_mode():
        cache.update(*new_tokens(2), 0)
    keys, _ = cache.update(*new_tokens(1), 0)
    assert keys.shape[2] == 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"prompt_lookup_num_tokens": 3},
    ],
    ids=str,
)
def test_generation_gives_the_same_tokens_and_scores(options: dict[str, Any]) -> None:
    model = tiny_model().eval()
    torch.manual_seed(3)
    inputs = {
        "input_ids": torch.tensor([prompt_ids(model.config, [1, 5], (1, 2), [7, 8, 9, 7, 8, 9, 7, 8])]),
        "pixel_values": torch.randn(3, 3, 56, 56),
        "image_grids": torch.tensor([[1, 2]]),
    }
    outputs = []
    for kind in (None, "dynamic"):
        torch.manual_seed(4)
        outputs.append(
            model.generate(
                **inputs,
                **options,
                max_new_tokens=12,
                eos_token_id=None,
                cache_implementation=kind,
                output_logits=True,
                return_dict_in_generate=True,
            )
        )
    found, expected = outputs
    assert torch.equal(found.sequences, expected.sequences)
    assert all(torch.equal(*pair) for pair in zip(found.logits, expected.logits, strict=True))
    kinds = [{type(layer) is GrowingLayer for layer in getattr(output, CACHE).layers} for output in outputs]
    assert kinds == [{True}, {False}]


def test_a_window_stays_a_window() -> None:
    model = tiny_model()
    config = model.config.text_config
    config.use_sliding_window, config.sliding_window = True, 8
    config.layer_types = ["sliding_attention", *["full_attention"] * (config.num_hidden_layers - 1)]
    kinds = [type(layer) is GrowingLayer for layer in growing_cache(config).layers]
    assert kinds == [False, *[True] * (config.num_hidden_layers - 1)]
