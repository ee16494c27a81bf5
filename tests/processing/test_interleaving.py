"""Images where users put them in a text (`ConversationStyle.interleave`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from slime_vlm.errors import ConfigError
from slime_vlm.processing.chat_styles import STYLES, build_prompt, get_style, read_turns
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.tiny_text import tiny_processor

IMAGES = [Image.new("RGB", (28, 28), "red"), Image.new("RGB", (56, 28), "blue")]
BLOCKS = [
    {"type": "text", "text": "Is "},
    {"type": "image"},
    {"type": "text", "text": " larger than "},
    {"type": "image"},
    {"type": "text", "text": "?"},
]
RECORD = [{"from": "human", "value": "Is <image> larger than <image>?"}, {"from": "gpt", "value": "No"}]


@pytest.mark.parametrize("name", ["llama3", "v1", "pages"])
def test_by_hand(name: str) -> None:
    style = get_style({"name": name, "interleave": True})
    messages = [{"role": "user", "content": BLOCKS}]
    system = "" if style.default_system is None else style.default_system + style.system_close
    head, tail = system + style.user_open, style.user_close + style.assistant_open
    placed = build_prompt(read_turns(messages), style)
    assert placed == f"{head}Is <image> larger than <image>?{tail}"
    moved = build_prompt(read_turns(messages), STYLES[name])
    assert moved == f"{head}<image>\n<image>{style.image_close}Is  larger than ?{tail}"
    # A record in the published form says the same.
    assert build_prompt(read_turns(RECORD, 2)[:1], style) == placed


@pytest.mark.parametrize(
    "content",
    [
        BLOCKS,
        BLOCKS[1:],
        [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "which is larger?"}],
        [{"type": "text", "text": " "}, {"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}],
        [{"type": "text", "text": "describe"}, {"type": "image"}, {"type": "image"}],
        "no image",
    ],
    ids=["between", "first and between", "first", "blanks first", "last", "text"],
)
@pytest.mark.parametrize("name", ["llama3", "v1", "pages", "plain"])
def test_template_and_training_write_the_same(content: Any, name: str) -> None:
    processor = tiny_processor().use_style({"name": name, "interleave": True})
    messages = [{"role": "user", "content": content}]
    expected = build_prompt(read_turns(messages), get_style({"name": name, "interleave": True}))
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == expected


def test_images_that_come_first_are_written_as_always() -> None:
    processor, published = tiny_processor().use_style({"name": "llama3", "interleave": True}), tiny_processor("llama3")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "how wide?"}]}]
    assert processor.apply_chat_template(messages) == published.apply_chat_template(messages)


def test_question_tokens_and_images_in_order() -> None:
    processor = tiny_processor().use_style({"name": "llama3", "interleave": True})
    content = [dict(block) for block in BLOCKS]
    content[1]["image"], content[3]["image"] = IMAGES
    batch = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    ids, asked = batch["input_ids"][0], batch["question_mask"][0]
    assert processor.tokenizer.decode(ids[asked == 1]).replace(" ", "") == "Islargerthan?"
    counts = [processor.token_layout.num_image_tokens(*grid) for grid in batch["image_grids"].tolist()]
    placeholders = (ids == processor.image_token_id).nonzero()[:, 0]
    assert len(placeholders) == sum(counts)
    # The words between the two images are between their placeholders.
    assert int(placeholders[counts[0]] - placeholders[counts[0] - 1]) > 1
    trained = processor.encode_conversations([RECORD], [IMAGES])
    assert torch.equal(trained["input_ids"][0][: len(ids)], ids)


def test_it_is_saved_with_the_processor(tmp_path: Path) -> None:
    tiny_processor().use_style({"name": "llama3", "interleave": True}).save_pretrained(tmp_path)
    loaded = SlimeProcessor.from_pretrained(tmp_path)
    assert loaded.style is not None
    assert loaded.style.interleave
    messages = [{"role": "user", "content": BLOCKS}]
    assert "Is <image> larger than <image>?" in loaded.apply_chat_template(messages)


def test_published_records_do_not_change() -> None:
    turns = read_turns(RECORD, 1 + 1)
    assert build_prompt(turns, STYLES["plain"]) == "<image>\n<image>No\n"


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({"name": "pages", "interleave": "no"}, "interleave of the conversation style is 'no', expected true or false"),
        ({"name": "pages", "user_open": 1}, "user_open of the conversation style is 1, expected a text"),
        ({"user_open": "<user>"}, "has a wrong field"),
    ],
)
def test_fields_of_a_style_have_their_types(style: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_processor().use_style(style)
