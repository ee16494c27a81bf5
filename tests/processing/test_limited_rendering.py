"""A chat template that came with a checkpoint is rendered within limits, with the same result as without."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from slime_vlm.errors import CheckpointError, InputError
from slime_vlm.processing import limited_rendering
from slime_vlm.processing.chat_template import accept_images
from tests.tiny_text import tiny_processor

MESSAGES = [
    {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (4, 4))}, {"type": "text", "text": "Ü?"}]},
    {"role": "assistant", "content": "Yes 😀"},
]
FOREIGN = accept_images(
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
    "{% else %}[{{ m['content'] | tojson }} {{ word | default('-') }}]{% endif %}{% endfor %}"
)


def test_the_result_is_that_of_rendering_here() -> None:
    foreign, plain = tiny_processor(None, chat_template=FOREIGN), tiny_processor(None, chat_template="-")
    limited_rendering._pool.end_all()
    for options in ({}, {"word": "x"}):
        # A template that the caller passes is rendered here.
        expected = plain.apply_chat_template(MESSAGES, chat_template=FOREIGN, **options)
        assert not limited_rendering._pool.idle
        assert expected.startswith('["<image>\\nÜ?" ' + options.get("word", "-"))
    for options in ({"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}, {"word": "x"}):
        here = plain.apply_chat_template(MESSAGES, chat_template=FOREIGN, **options)
        assert str(foreign.apply_chat_template(MESSAGES, **options)) == str(here)
    assert len(limited_rendering._pool.idle) == 1


def test_tools_are_described_to_the_template() -> None:
    def weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: Where.
        """
        return city

    processor = tiny_processor(None, chat_template="{{ tools | tojson }}")
    rendered = processor.apply_chat_template(MESSAGES, tools=[weather])
    assert json.loads(rendered)[0]["function"]["parameters"]["required"] == ["city"]


def test_own_templates_need_no_worker() -> None:
    limited_rendering._pool.end_all()
    processor = tiny_processor("llama3")
    assert "Ü?" in processor.apply_chat_template(MESSAGES)
    processor.use_style({"name": "v1", "interleave": True})
    assert "Ü?" in processor.apply_chat_template(MESSAGES)
    assert not limited_rendering._pool.idle


@pytest.mark.parametrize(
    ("template", "error", "words"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            CheckpointError,
            "1 seconds",
        ),
        ("{{ 9 ** (9 ** 9) }}", CheckpointError, "1 seconds or crashes"),
        ("{{ 'a' * 10 ** 12 }}", CheckpointError, "500 MB of memory"),
        ("{{ 'a' * 3000000 }}", CheckpointError, "writes more than 2,000,000 characters"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", InputError, "does not take the messages: Range too big"),
        ("{{ 1 // 0 }}", InputError, "does not take the messages"),
        ("{{ ", InputError, "does not take the messages"),
    ],
)
def test_a_hostile_template_is_one_error(template, error, words, monkeypatch) -> None:
    # A busy machine takes more than a second to fill the memory.
    monkeypatch.setattr(limited_rendering, "SECONDS", 1 if "seconds" in words else 30)
    with pytest.raises(error, match=words) as raised:
        tiny_processor(None, chat_template=template).apply_chat_template(MESSAGES)
    assert "\n" not in str(raised.value)
