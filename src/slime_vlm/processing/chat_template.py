"""Adapt the chat template of a language model to images.

Language models are published with templates for text. Some append the content of a message to a string, which fails for
a list of blocks. Some write an image as a token of their own. Messages are therefore turned into plain text, with our
placeholder for every image, before the template processes them. The template itself does not change.
"""

from __future__ import annotations

import json

from slime_vlm.processing.chat_styles import IMAGE_PLACEHOLDER

# As in `chat_styles.build_segments`: images first, one per line, then the text.
_FLATTEN = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message['content'] is string or not message['content'] -%}
{%- set flat.messages = flat.messages + [message] -%}
{%- else -%}
{%- set part = namespace(text='', images=[]) -%}
{%- for block in message['content'] -%}
{%- if block['type'] == 'text' -%}{%- set part.text = part.text + block['text'] -%}
{%- else -%}{%- set part.images = part.images + [IMAGE] -%}{%- endif -%}
{%- endfor -%}
{%- set gap = '\\n' if part.images and part.text else '' -%}
{%- set flat.messages = flat.messages + [dict(message, content=(part.images | join('\\n')) + gap + part.text)] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
""".replace("IMAGE", json.dumps(IMAGE_PLACEHOLDER))

# Training supervises the answer alone. A template that puts an empty thinking block before it (Qwen3) has to put the
# same block into the prompt of a question. Callers may still pass enable_thinking=True.
_NO_THINKING = "{%- set enable_thinking = enable_thinking | default(false) -%}\n"


def accept_images(template: str) -> str:
    """Flatten messages in front of a chat template, and turn thinking off if the template has it.

    Args:
        template: Jinja template of a language model.

    Returns:
        A template that renders messages with text and image blocks, and messages of plain text as before.
    """
    return _FLATTEN + (_NO_THINKING if "enable_thinking" in template else "") + template
