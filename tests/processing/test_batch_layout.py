"""The layout with one row per image, for trainers of other libraries (processor option `batch_layout`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from slime_vlm.errors import ConfigError
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.tiny_text import tiny_processor

WIDE, SQUARE = Image.new("RGB", (84, 28), "red"), Image.new("RGB", (28, 28), "blue")


def texts(processor: SlimeProcessor, row: torch.Tensor, types: torch.Tensor, kind: int) -> str:
    """The tokens of one type, image placeholders left out."""
    chosen = (types == kind) & (row != processor.image_token_id)
    return str(processor.tokenizer.decode(row[chosen]))


def test_image_fields_have_one_row_per_image() -> None:
    flat, padded = tiny_processor(), tiny_processor(batch_layout="images")
    prompts = ["<image> how wide?", "<image> what colour?"]
    expected, found = flat([WIDE, SQUARE], prompts), padded([WIDE, SQUARE], prompts)
    assert set(found) == {"input_ids", "attention_mask", "pixel_values", "image_sizes", "token_type_ids"}
    assert set(padded.model_input_names) == set(found)
    assert torch.equal(found["input_ids"], expected["input_ids"])
    assert found["image_sizes"].tolist() == [[28, 84], [56, 28]]
    assert found["pixel_values"].shape == (2, 4, 3, 28, 28)
    assert torch.equal(found["pixel_values"][0], expected["pixel_values"][:4])
    assert torch.equal(found["pixel_values"][1, :3], expected["pixel_values"][4:])
    assert torch.equal((found["token_type_ids"] == 1).long(), expected["question_mask"])


def test_token_types_of_an_answered_conversation() -> None:
    processor = tiny_processor("v1", batch_layout="images")
    content = [{"type": "image", "image": SQUARE}, {"type": "text", "text": "how wide?"}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": "28"}]},
        {"role": "user", "content": [{"type": "text", "text": "and high?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "too"}]},
    ]
    batch = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    row, types = batch["input_ids"][0], batch["token_type_ids"][0]
    assert texts(processor, row, types, 1) == "how wide?and high?"
    assert texts(processor, row, types, 0).replace(" ", "") == "28</s>too</s>"
    # The same conversation written as text, as TRL does before it tokenizes. The text has the beginning-of-text token.
    written = processor([SQUARE], processor.apply_chat_template(messages), add_special_tokens=False)
    assert torch.equal(written["input_ids"][0], row)
    assert torch.equal(written["token_type_ids"][0], types)
    own = tiny_processor("v1").encode_conversations([messages], [[SQUARE]])
    assert torch.equal(own["input_ids"][0], row)


def test_only_the_last_question_of_a_prompt_counts_and_earlier_answers_belong_to_it() -> None:
    processor = tiny_processor("v1", batch_layout="images")
    content = [{"type": "image", "image": SQUARE}, {"type": "text", "text": "how wide?"}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": "28"}]},
        {"role": "user", "content": [{"type": "text", "text": "and high?"}]},
    ]
    for options in ({"add_generation_prompt": True}, {}):
        batch = processor.apply_chat_template(messages, tokenize=True, return_dict=True, **options)
        row, types = batch["input_ids"][0], batch["token_type_ids"][0]
        assert texts(processor, row, types, 1) == "and high?"
        assert texts(processor, row, types, 0) == ""
        assert "28" in texts(processor, row, types, 2)


def test_a_completion_alone_is_neither_question_nor_prompt() -> None:
    processor = tiny_processor(batch_layout="images")
    assert processor(text=["blue</s>"])["token_type_ids"].tolist() == [[0] * 6]


def test_the_layout_is_saved(tmp_path: Path) -> None:
    tiny_processor(batch_layout="images").save_pretrained(tmp_path)
    assert SlimeProcessor.from_pretrained(tmp_path).batch_layout == "images"


def test_the_layout_of_a_call_and_of_own_training_data() -> None:
    processor = tiny_processor(batch_layout="images")
    assert "question_mask" in processor([SQUARE], ["<image> how wide?"], batch_layout="views")
    turns = [{"role": "user", "content": "<image>how wide?"}, {"role": "assistant", "content": "28"}]
    assert "question_mask" in processor.encode_conversations([turns], [[SQUARE]])


def test_an_unknown_layout() -> None:
    with pytest.raises(ConfigError, match="batch_layout is 'rows', expected 'views' or 'images'"):
        tiny_processor(batch_layout="rows")
