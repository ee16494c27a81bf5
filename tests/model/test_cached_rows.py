"""A filled cache continues at the right position, however the caller counts (model/cached_rows.py, generation.py)."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import slime_vlm
from slime_vlm.errors import InputError
from slime_vlm.model.cached_rows import CachedRows, attach_record, record_of
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from tests.conftest import IMAGE_TOKEN, pad_batch, prompt_ids, tiny_model

INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"
QUESTIONS = ("What is the amount due?", "balance", "invoice number")
DROPPING = [{"max_local_tokens": 3}, {"max_local_tokens": 3, "keep_position_ids": True}]


@pytest.fixture(scope="module")
def nano() -> tuple[Any, Any]:
    return slime_vlm.load("nano", device="cpu")


def nano_inputs(processor: Any, question: str) -> dict[str, Tensor]:
    content = [{"type": "image", "image": slime_vlm.open_image(INVOICE)}, {"type": "text", "text": question}]
    return dict(
        processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
        )
    )


def generated(model: Any, inputs: dict[str, Tensor], **options: Any) -> list[list[int]]:
    sequences = model.generate(**inputs, do_sample=False, **{"max_new_tokens": 12, **options})
    return [row[inputs["input_ids"].shape[1] :].tolist() for row in sequences]


@torch.inference_mode()
def plain_loop(model: Any, inputs: dict[str, Tensor], steps: int, mask_of: str) -> list[list[int]]:
    """Greedy tokens by calling the model alone, as many tutorials do."""
    outputs = model(**inputs, use_cache=True)
    mask = {"grown": inputs["attention_mask"], "merged": outputs.attention_mask, "none": None, "new": None}[mask_of]
    tokens: list[Tensor] = []
    for _ in range(steps):
        token = outputs.logits[:, -1:].argmax(dim=-1)
        tokens.append(token)
        options: dict[str, Any] = {}
        if mask is not None:
            mask = torch.cat([mask, torch.ones_like(token)], dim=1)
            options["attention_mask"] = mask
        elif mask_of == "new":
            options["attention_mask"] = torch.ones_like(token)
        outputs = model(input_ids=token, past_key_values=outputs.past_key_values, **options)
    return torch.cat(tokens, dim=1).tolist()


def tiny_batch(model: SlimeForConditionalGeneration) -> dict[str, Tensor]:
    """Two rows of unequal length, padded on the left, an image in each."""
    torch.manual_seed(1)
    rows = [
        prompt_ids(model.config, [1, 5], (1, 2), [7, 8]),
        prompt_ids(model.config, [1, 9, 10, 11], (2, 1), [12, 4, 6, 13]),
    ]
    batch = pad_batch(rows, side="left")
    return {**batch, "pixel_values": torch.randn(6, 3, 56, 56), "image_grids": torch.tensor([[1, 2], [2, 1]])}


@pytest.mark.parametrize("mask_of", ["none", "grown", "merged", "new"])
@pytest.mark.parametrize("overrides", [{}, *DROPPING], ids=str)
def test_a_plain_loop_gives_what_generate_gives(overrides: dict[str, Any], mask_of: str) -> None:
    model = tiny_model(**overrides)
    inputs = tiny_batch(model)
    expected = generated(model, inputs, max_new_tokens=6, eos_token_id=None)
    assert plain_loop(model, inputs, 6, mask_of) == expected


@pytest.mark.parametrize("mask_of", ["none", "grown", "merged"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_plain_loop_on_nano(nano: tuple[Any, Any], question: str, mask_of: str) -> None:
    model, processor = nano
    inputs = nano_inputs(processor, question)
    expected = generated(model, inputs)[0]
    assert plain_loop(model, inputs, len(expected), mask_of) == [expected]


@pytest.mark.parametrize("whole", [False, True], ids=["new tokens", "whole conversation"])
@pytest.mark.parametrize("with_image", [False, True], ids=["text", "second image"])
@pytest.mark.parametrize("overrides", [{}, *DROPPING], ids=str)
def test_a_second_turn_equals_one_without_a_cache(overrides: dict[str, Any], with_image: bool, whole: bool) -> None:
    model = tiny_model(**overrides)
    torch.manual_seed(2)
    pixels, grids = torch.randn(3 + 2 * with_image, 3, 56, 56), torch.tensor([[1, 2], [1, 1]][: 1 + with_image])
    first = torch.tensor([prompt_ids(model.config, [1, 5], (1, 2), [7, 8])])
    options: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}
    said = model.generate(input_ids=first, pixel_values=pixels[:3], image_grids=grids[:1], max_new_tokens=4, **options)
    follow = torch.tensor([prompt_ids(model.config, [14], *([(1, 1)] if with_image else []), [15, 16, 17])])
    row = torch.cat([said.sequences, follow], dim=1)
    tokens = model.encode_images(pixels, grids)
    with torch.no_grad():
        kept = [model.select(tokens[:1], first).kept[0]]
        if with_image:
            # The second image is selected by the tokens of its own turn: the last answer token and what follows.
            kept.append(model.select(tokens[1:], row[:, said.sequences.shape[1] - 1 :]).kept[0])
    # Without a mask, transformers takes a generated token for padding that has the same id.
    ones = torch.ones_like(row)
    scratch = model.generate(
        input_ids=row,
        attention_mask=ones,
        vision_tokens=tokens,
        kept_local_tokens=kept,
        max_new_tokens=5,
        use_cache=False,
        **options,
    )
    images: dict[str, Any] = {}
    if with_image:
        images = (
            {"pixel_values": pixels, "image_grids": grids}
            if whole
            else {"pixel_values": pixels[3:], "image_grids": grids[1:]}
        )
    cache = said.past_key_values
    if whole:
        continued = model.generate(
            input_ids=row, attention_mask=ones, past_key_values=cache, max_new_tokens=5, **images, **options
        )
        found = continued.sequences[:, row.shape[1] :]
    else:
        # The last token of an answer is not in the cache yet.
        new = row[:, said.sequences.shape[1] - 1 :]
        mask = torch.ones(1, cache.get_seq_length() + new.shape[1], dtype=torch.long)
        continued = model.generate(
            input_ids=new, attention_mask=mask, past_key_values=cache, max_new_tokens=5, **images, **options
        )
        found = continued.sequences[:, new.shape[1] :]
    assert found.tolist() == scratch.sequences[:, row.shape[1] :].tolist()


def test_a_second_turn_on_nano(nano: tuple[Any, Any]) -> None:
    model, processor = nano
    inputs = nano_inputs(processor, QUESTIONS[0])
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "return_dict_in_generate": True}
    said = model.generate(**inputs, **options)
    follow = processor.tokenizer("<eos><user>balance<assistant>", add_special_tokens=False, return_tensors="pt")
    row = torch.cat([said.sequences[:, :-1], follow.input_ids], dim=1)
    tokens = model.encode_images(inputs["pixel_values"], inputs["image_grids"])
    text = {name: inputs[name] for name in ("input_ids", "attention_mask", "question_mask")}
    kept = [model.select(tokens, **text).kept[0]]
    scratch = model.generate(input_ids=row, vision_tokens=tokens, kept_local_tokens=kept, use_cache=False, **options)
    whole = model.generate(input_ids=row, past_key_values=said.past_key_values, **options)
    assert whole.sequences.tolist() == scratch.sequences.tolist()


def test_a_cropped_cache_continues_where_it_ends() -> None:
    model = tiny_model(max_local_tokens=3, keep_position_ids=True)
    inputs = tiny_batch(model)
    with torch.inference_mode():
        outputs = model(**inputs, use_cache=True)
        cache, length = outputs.past_key_values, outputs.past_key_values.get_seq_length()
        expected = model(input_ids=torch.tensor([[5], [6]]), past_key_values=cache).logits
        for _ in range(3):
            model(input_ids=torch.tensor([[7], [8]]), past_key_values=cache)
        cache.crop(length - cache.get_seq_length())
        again = model(input_ids=torch.tensor([[5], [6]]), past_key_values=cache).logits
    assert torch.allclose(again, expected, atol=1e-5)


def test_a_cache_with_repeated_rows_continues_by_the_positions_of_the_caller() -> None:
    model = tiny_model(max_local_tokens=3, keep_position_ids=True)
    inputs = tiny_batch(model)
    token = torch.tensor([[5], [6]])
    first = model(**inputs, use_cache=True)
    positions = first.position_ids.amax(dim=1, keepdim=True) + 1
    mask = torch.cat([first.attention_mask, torch.ones_like(token)], dim=1)
    expected = model(input_ids=token, past_key_values=first.past_key_values, use_cache=True).logits

    cache = model(**inputs, use_cache=True).past_key_values
    cache.batch_repeat_interleave(2)
    doubled = [rows.repeat_interleave(2, dim=0) for rows in (token, mask, positions)]
    # As if the caller had put another cache's rows there.
    attach_record(cache, record_of(model(**inputs, use_cache=True).past_key_values))
    with pytest.raises(InputError, match="pass position_ids and attention_mask"):
        model(input_ids=doubled[0], past_key_values=cache)
    logits = model(
        input_ids=doubled[0], attention_mask=doubled[1], position_ids=doubled[2], past_key_values=cache
    ).logits
    torch.testing.assert_close(logits, expected.repeat_interleave(2, dim=0))


def test_a_record_by_hand() -> None:
    record = CachedRows(
        input_ids=torch.tensor([[1, 60, 60, 60, 5]]),
        attention_mask=torch.tensor([[0, 1, 1, 1]]),
        position_ids=torch.tensor([[0, 0, 2, 4]]),
        token_index=torch.tensor([[-1, 0, 2, 4]]),
    )
    assert record.next_positions(torch.tensor([[1, 1]])).tolist() == [[5, 6]]
    assert record.begins(torch.tensor([[1, 60, 60, 60, 5, 9]]))
    assert not record.begins(torch.tensor([[1, 60, 60, 60, 6, 9]]))
    cut = record.cut(3)
    assert cut.input_ids.tolist() == [[1, 60, 60]]
    assert cut.next_positions(torch.tensor([[1]])).tolist() == [[3]]
    both = record.followed_by(CachedRows(*(torch.tensor([row]) for row in ([9], [1], [5], [0]))))
    assert both.token_index.tolist() == [[-1, 0, 2, 4, 5]]
    for columns in (1, 5, 6):
        cached, new = record.split_mask(torch.ones(1, columns, dtype=torch.long), 1, 1)
        assert (cached.shape[1], new.shape[1]) == (4, 1)
    with pytest.raises(InputError, match="attention_mask has 3 columns, expected 1"):
        record.split_mask(torch.ones(1, 3), 1, 1)
    with pytest.raises(InputError, match="was filled with 1 row"):
        record.split_mask(None, 1, 2)


def test_ids_that_do_not_begin_with_the_cache_are_refused() -> None:
    model = tiny_model(max_local_tokens=3)
    first = prompt_ids(model.config, [1, 5], (1, 2), [7, 8])
    said = model.generate(
        input_ids=torch.tensor([first]),
        pixel_values=torch.randn(3, 3, 56, 56),
        image_grids=torch.tensor([[1, 2]]),
        max_new_tokens=2,
        return_dict_in_generate=True,
    )
    assert record_of(said.past_key_values) is not None
    other = torch.tensor([[1, 6, *first[2:], 9, 9, 9]])
    with pytest.raises(InputError, match="do not begin with them"):
        model.generate(input_ids=other, past_key_values=said.past_key_values, max_new_tokens=2)
    with pytest.raises(InputError, match="hold image placeholders, and no image came"):
        model(input_ids=torch.tensor([[5, IMAGE_TOKEN]]), past_key_values=said.past_key_values)


@pytest.mark.parametrize("question", QUESTIONS)
def test_prompt_lookup_is_greedy(nano: tuple[Any, Any], question: str) -> None:
    model, processor = nano
    inputs = nano_inputs(processor, question)
    for tokens in (2, 5):
        assert generated(model, inputs, prompt_lookup_num_tokens=tokens) == generated(model, inputs)


@pytest.mark.parametrize("overrides", [{}, *DROPPING], ids=str)
def test_prompt_lookup_with_rejected_drafts(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    torch.manual_seed(3)
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([prompt_ids(model.config, [1, 5], (1, 2), [7, 8, 9, 7, 8, 9, 7, 8])]),
        "pixel_values": torch.randn(3, 3, 56, 56),
        "image_grids": torch.tensor([[1, 2]]),
    }
    expected = generated(model, inputs, max_new_tokens=16, eos_token_id=None)
    found = generated(model, inputs, max_new_tokens=16, eos_token_id=None, prompt_lookup_num_tokens=3)
    assert found == expected


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static"},
        {"cache_implementation": "offloaded"},
        {"use_cache": False},
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_modes_of_generation_on_nano(nano: tuple[Any, Any], options: dict[str, Any]) -> None:
    model, processor = nano
    inputs = nano_inputs(processor, QUESTIONS[0])
    if options.get("cache_implementation") == "offloaded" and not torch.cuda.is_available():
        pytest.skip("an offloaded cache needs a GPU")
    found = generated(model, inputs, **options)
    text = [processor.tokenizer.decode(row, skip_special_tokens=True) for row in found]
    assert text[0] == "$87.84"


def test_what_drafts_for_another_model_is_refused() -> None:
    model = tiny_model()
    ids = torch.tensor([[1, 5, 6]])
    for options in ({"assistant_model": model}, {"assistant_early_exit": 1}):
        with pytest.raises(InputError, match=r"assistant_\w+ is not supported"):
            model.generate(input_ids=ids, max_new_tokens=2, **options)
    outside = tiny_model(image_token_id=64)
    with pytest.raises(InputError, match="placeholder inside the vocabulary"):
        outside.generate(input_ids=ids, max_new_tokens=2, prompt_lookup_num_tokens=2)


ORDERS = [[1, 0], [1], [0, 0, 1, 1], [0, 1], [1, 0]]


def test_the_record_follows_the_rows_of_a_cache() -> None:
    """A record of the former order gave a row the positions and the padding of another, without a word."""
    model = tiny_model().eval()
    ids, mask = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[0, 0, 1], [1, 1, 1]])

    def cache() -> Any:
        return model(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values

    def after(cache: Any, rows: int) -> torch.Tensor:
        return model(input_ids=torch.full((rows, 1), 7), past_key_values=cache).logits[:, -1]

    with torch.no_grad():
        expected = after(cache(), 2)
        swapped, chosen, repeated, copied = cache(), cache(), cache(), cache()
        swapped.reorder_cache(torch.tensor([1, 0]))
        chosen.batch_select_indices(torch.tensor([1]))
        repeated.batch_repeat_interleave(2)
        copied.reorder_cache(torch.tensor([1, 0]))
        copied, stored = copy.deepcopy(copied), pickle.loads(pickle.dumps(copied))
        copied.reorder_cache(torch.tensor([1, 0]))
        for found, rows in (
            (swapped, [1, 0]),
            (chosen, [1]),
            (repeated, [0, 0, 1, 1]),
            (copied, [0, 1]),
            (stored, [1, 0]),
        ):
            assert type(found).__name__ == "DynamicCache"
            torch.testing.assert_close(after(found, len(rows)), expected[rows], rtol=1e-5, atol=1e-5)


def test_a_cache_is_freed_with_its_last_use() -> None:
    model = tiny_model().eval()
    cache = model(input_ids=torch.tensor([[1, 2]]), use_cache=True).past_key_values
    gone = weakref.ref(cache)
    gc.disable()
    try:
        del cache
        assert gone() is None
    finally:
        gc.enable()


def test_the_record_follows_the_beams() -> None:
    """What the cache of a beam search holds is what its record says: the conversation of that beam continues."""
    model = tiny_model().eval()
    ids, mask = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[0, 0, 1], [1, 1, 1]])
    with torch.no_grad():
        cache = model.generate(
            input_ids=ids, attention_mask=mask, num_beams=3, max_new_tokens=6, return_dict_in_generate=True
        ).past_key_values
        record = record_of(cache)
        assert record is not None
        assert record.num_rows == 6
        plain = model(input_ids=record.input_ids, attention_mask=record.attention_mask, use_cache=True).past_key_values
    for ours, other in zip(cache.layers, plain.layers, strict=True):
        real = record.attention_mask.bool()[:, None, :, None]
        torch.testing.assert_close(ours.keys * real, other.keys * real, rtol=1e-4, atol=1e-4)
