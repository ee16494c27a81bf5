"""The formats of all language models: what is written, which tokens are the question, which are supervised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from slime_vlm.checkpoints.from_pretrained_parts import conversation_of
from slime_vlm.errors import DataError
from slime_vlm.processing.chat_template import accept_images
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.checkpoints.pretrained_parts.families import CHATS, LABELS, PROMPTS, chat_tokenizer

IMAGE = Image.new("RGB", (40, 60), "red")
QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]


def processor_of(name: str) -> SlimeProcessor:
    tokenizer = chat_tokenizer(name)
    style, template = conversation_of(tokenizer)
    return SlimeProcessor(SlimeImageProcessor(view_size=28), tokenizer, template, "<image>", style, 4, 1, 1)


def said(processor: SlimeProcessor, ids: torch.Tensor) -> str:
    return processor.tokenizer.decode(ids)


@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompt_is_the_language_models_own(name: str) -> None:
    processor = processor_of(name)
    assert processor.style is None
    assert processor.apply_chat_template(QUESTION, add_generation_prompt=True) == PROMPTS[name]
    # Text alone, token by token, is what the language model's own tokenizer makes of the same messages.
    turns = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Me."},
        {"role": "user", "content": "Oh"},
    ]
    blocks = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    own = chat_tokenizer(name).apply_chat_template(
        turns, add_generation_prompt=True, return_dict=True, enable_thinking=False
    )
    for messages in (turns, blocks):
        found = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert found["input_ids"][0].tolist() == own["input_ids"]


@pytest.mark.parametrize("name", PROMPTS)
def test_question_and_answers_are_marked_and_nothing_else(name: str) -> None:
    processor = processor_of(name)
    record = [
        {"from": "human", "value": "<image>\nWhat colour?"},
        {"from": "gpt", "value": "Red."},
        {"from": "human", "value": "And this?"},
        {"from": "gpt", "value": "Blue."},
    ]
    batch = processor.encode_conversations([record], images=[IMAGE])
    labels = batch["labels"][0]
    assert said(processor, labels[labels != -100]) == LABELS[name]
    assert said(processor, batch["input_ids"][0][batch["question_mask"][0].bool()]) == "What colour?And this?"
    assert (batch["input_ids"] == processor.image_token_id).sum() == 4 + 1 + int(batch["image_grids"].prod())
    # Asked, the model stands where training put it: right before the first supervised token of the last turn.
    history = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour?"}]},
        {"role": "assistant", "content": "Red."},
        {"role": "user", "content": "And this?"},
    ]
    asked = processor.apply_chat_template(
        history, add_generation_prompt=True, tokenize=True, return_dict=True, processor_kwargs={"images": [IMAGE]}
    )
    prompt = asked["input_ids"][0].tolist()
    row = batch["input_ids"][0].tolist()
    assert row[: len(prompt)] == prompt
    assert labels[len(prompt)] != -100
    assert said(processor, asked["input_ids"][0][asked["question_mask"][0].bool()]) == "And this?"


def test_which_conversation_a_language_model_gets() -> None:
    found = {name: conversation_of(chat_tokenizer(name)) for name in CHATS}
    assert found["vicuna"] == ("v1", None)
    assert found["llama3"] == ("llama3", None)
    assert {name for name, (style, _) in found.items() if style is None} == set(PROMPTS) == set(LABELS)
    style = found["base"][0]
    assert (style["name"], style["assistant_close"]) == ("v1-own-end", "<|endoftext|>")
    processor = processor_of("base")
    row = processor.encode_conversations([[{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]])
    assert said(processor, row["labels"][0][row["labels"][0] != -100]) == " A cat.<|endoftext|>"


@pytest.mark.parametrize("name", ["mistral", "gemma"])
def test_roles_that_a_template_refuses_are_one_line(name: str) -> None:
    record = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    with pytest.raises(DataError, match=r"does not take the messages: .* fix the record"):
        processor_of(name).encode_conversations([record])


def test_thinking_is_off_unless_asked_for() -> None:
    processor = processor_of("qwen3")
    assert processor.apply_chat_template(QUESTION, add_generation_prompt=True).endswith("</think>\n\n")
    thinking = processor.apply_chat_template(QUESTION, add_generation_prompt=True, enable_thinking=True)
    assert thinking.endswith("<|im_start|>assistant\n")


def test_several_images_and_none_in_one_template() -> None:
    template = accept_images("{% for m in messages %}[{{ m['role'] }}:{{ m['content'] }}]{% endfor %}")
    processor = SlimeProcessor(SlimeImageProcessor(view_size=28), chat_tokenizer("qwen2"), template)
    image, text = {"type": "image"}, {"type": "text", "text": "a"}
    messages = [
        {"role": "user", "content": [text, image, text, image]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [image]},
        {"role": "user", "content": "plain <image>"},
    ]
    assert processor.apply_chat_template(messages) == (
        "[user:<image>\n<image>\naa][assistant:][user:<image>][user:plain <image>]"
    )


@pytest.mark.parametrize("name", PROMPTS)
def test_saved_equals_loaded(name: str, tmp_path: Path) -> None:
    processor = processor_of(name)
    processor.save_pretrained(tmp_path)
    loaded = SlimeProcessor.from_pretrained(tmp_path)
    assert loaded.apply_chat_template(QUESTION, add_generation_prompt=True) == PROMPTS[name]
    assert loaded.image_token_id == processor.image_token_id
