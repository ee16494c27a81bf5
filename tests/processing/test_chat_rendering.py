"""`apply_chat_template` means the same with every version of transformers."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.processing.chat_rendering import assistant_mask
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.tiny_text import tiny_processor

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
PLAIN = "{% for m in messages %}[{{ m['role'] }}:{{ m['content'] }}]{% endfor %}"


def asked(text: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*blocks, {"type": "text", "text": text}]}


def answered(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def process(processor: SlimeProcessor, messages: list[Any], **options: Any) -> Any:
    return processor.apply_chat_template(messages, tokenize=True, return_dict=True, **options)


def spoken(processor: SlimeProcessor, inputs: Any, row: int = 0) -> str:
    mask = torch.tensor(inputs["assistant_masks"][row]).bool()
    return processor.decode(inputs["input_ids"][row][mask])


def test_a_content_of_none_is_not_a_word() -> None:
    processor = tiny_processor(None, chat_template=PLAIN)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": None}]
    assert processor.apply_chat_template(messages) == "[user:a][assistant:]"
    assert messages[1] == {"role": "assistant", "content": None, "tool_calls": None}


def test_images_come_in_every_form_of_a_block(tmp_path: Path) -> None:
    processor = tiny_processor("v1")
    IMAGE.save(tmp_path / "image.png")
    buffer = io.BytesIO()
    IMAGE.save(buffer, "png")
    text = base64.b64encode(buffer.getvalue()).decode()
    expected = process(processor, [asked("What?", {"type": "image", "image": IMAGE})])
    blocks = [
        {"type": "image", "path": str(tmp_path / "image.png")},
        {"type": "image", "base64": text},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}},
        {"type": "image_url", "image_url": str(tmp_path / "image.png")},
    ]
    for block in blocks:
        inputs = process(processor, [asked("What?", block)])
        assert all(torch.equal(inputs[name], expected[name]) for name in expected), block
    # Apart from the messages, as trainers pass them.
    for images in (IMAGE, [IMAGE], [[IMAGE]]):
        inputs = process(processor, [asked("What?", {"type": "image"})], processor_kwargs={"images": images})
        assert torch.equal(inputs["pixel_values"], expected["pixel_values"])


def test_variables_of_a_template_and_arguments_of_the_processor() -> None:
    template = (
        "{{ bos_token }}{{ mood | default('calm') }}:{{ tools | length if tools else 0 }}{{ messages[0].content }}"
    )
    processor = tiny_processor(None, chat_template=template)
    messages = [{"role": "user", "content": "What?"}]
    assert processor.apply_chat_template(messages, mood="glad") == "<bos>glad:0What?"
    assert processor.apply_chat_template(messages, tools=[{"name": "a"}]) == "<bos>calm:1What?"
    # `images` is a variable of a template here, and no argument that comes twice.
    assert processor.apply_chat_template(messages, chat_template="{{ images }}", images=3) == "3"
    batch = [messages, [{"role": "user", "content": "And so?"}]]
    lists = process(processor, batch, mood="glad", padding=False, return_tensors=None)["input_ids"]
    assert [processor.decode(row) for row in lists] == ["<bos>glad:0What?", "<bos>glad:0And so?"]
    assert process(processor, batch, processor_kwargs={"padding": "max_length", "max_length": 40})[
        "input_ids"
    ].shape == (2, 40)
    assert processor.apply_chat_template(messages, tokenize=True).shape == (1, 12)


def test_templates_by_name() -> None:
    processor = tiny_processor(None, chat_template={"default": "a{{ messages[0].content }}", "short": "b"})
    messages = [{"role": "user", "content": "!"}]
    assert processor.apply_chat_template(messages) == "a!"
    assert processor.apply_chat_template(messages, chat_template="short") == "b"
    assert processor.apply_chat_template(messages, chat_template="{{ 1 + 1 }}") == "2"


@pytest.mark.parametrize("style", ["v1", "llama3", "pages"])
def test_assistant_masks_of_a_batch(style: str) -> None:
    processor = tiny_processor(style)
    image = {"type": "image", "image": IMAGE}
    rows = [
        [asked("What?", image, image), answered("A cat."), asked("Sure?"), answered("Yes.")],
        [asked("Who?", image), answered("Me.")],
    ]
    inputs = process(processor, rows, return_assistant_tokens_mask=True)
    found = [spoken(processor, inputs, row) for row in range(2)]
    words = [re.sub(r"<[^>]*>", " ", text).split() for text in found]
    assert words == [["A", "cat.", "Yes."], ["Me."]]
    typed = process(processor, rows, return_assistant_tokens_mask=True, return_tensors="pt")["assistant_masks"]
    assert typed.tolist() == inputs["assistant_masks"]


def test_assistant_masks_behind_special_tokens_and_escaped_placeholders() -> None:
    processor = tiny_processor("v1")
    image = {"type": "image", "image": IMAGE}
    rows = [asked("Is <bos></s> an \\<image>?", image), answered("No \\<image>."), asked("So?"), answered("Yes.")]
    inputs = process(processor, rows, return_assistant_tokens_mask=True)
    assert spoken(processor, inputs) == " No <image>.</s> Yes.</s>"
    assert (inputs["input_ids"][0] == processor.image_token_id).sum() == 4 + 1 + 4
    # What the user wrote is text, and the last question is known, with the mask as without it.
    plain = process(processor, rows)
    assert torch.equal(plain["input_ids"], inputs["input_ids"])
    assert torch.equal(plain["question_mask"], inputs["question_mask"])


def test_assistant_mask_by_hand() -> None:
    # "a<image>bc" with the placeholder repeated twice. The assistant wrote "bc", characters 8 to 10.
    offsets = [(0, 0), (0, 1), (1, 8), (8, 15), (15, 16), (16, 17)]
    replacement = {"span": (1, 8), "new_span": (1, 15)}
    assert assistant_mask(offsets, [replacement], [(8, 10)]) == [0, 0, 0, 0, 1, 1]
    assert assistant_mask(offsets, [replacement], [(0, 1)]) == [0, 1, 0, 0, 0, 0]
    assert assistant_mask(offsets, [replacement], []) == [0] * 6


@pytest.mark.parametrize(
    ("messages", "options", "message"),
    [
        ([], {}, "there is no message"),
        (["What?"], {}, "a message is of type str"),
        ([asked("What?", {"type": "video", "path": "a.mp4"})], {}, "a block of type 'video', expected text and image"),
        ([asked("What?", {"type": "input_audio"})], {}, "a block of type 'input_audio'"),
        ([asked("What?", {"text": "no type"})], {}, "a message has the block {'text': 'no type'}, expected"),
        ([{"role": "user", "content": ["What?"]}], {}, "a message has the block 'What\\?', expected"),
        ([answered("A")], {"continue_final_message": True, "add_generation_prompt": True}, "expected it alone"),
        ([answered("A")], {"continue_final_message": True, "return_assistant_tokens_mask": True}, "expected it alone"),
    ],
)
def test_messages_that_cannot_be_read(messages: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tiny_processor("v1").apply_chat_template(messages, **options)
    assert "\n" not in str(caught.value)


def test_no_template() -> None:
    with pytest.raises(ConfigError, match="has no chat template"):
        tiny_processor(None).apply_chat_template([asked("What?")])
    with pytest.raises(ConfigError, match="expected the name of one of short"):
        tiny_processor(None, chat_template={"short": "b"}).apply_chat_template([asked("What?")])


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ({"role": "user", "content": [{"type": "imagee"}]}, "a block of type 'imagee', expected 'text' or 'image'"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "expected a text under 'text'"),
        ({"role": "narrator", "content": "once"}, "the chat template does not take the messages: role narrator"),
    ],
)
def test_messages_that_no_template_takes(message: dict[str, object], line: str) -> None:
    with pytest.raises(InputError, match=line):
        tiny_processor().apply_chat_template([message], tokenize=True)
