"""The chat template of a language model, made to take images.

Language models are published with templates for text: some add the content of a message to a string, which fails for a
list of blocks, and some write an image as a token of their own. So messages are made plain text, with our placeholder
for every image, before the template sees them; the template itself stays as its authors wrote it.
"""

from __future__ import annotations

import json

from slime_vlm.processing.chat_styles import IMAGE_PLACEHOLDER

# As in `conversation.build_segments`: images first, a line each, then the text.
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

# Training supervises the answer alone, so a template that opens a thinking block before it (Qwen3) has to open the same
# empty block when the model is asked. Callers may still pass enable_thinking=True.
_NO_THINKING = "{%- set enable_thinking = enable_thinking | default(false) -%}\n"


def accept_images(template: str) -> str:
    """Put the flattening of messages in front of a chat template, and turn thinking off where the template knows it.

    Args:
        template: Jinja template of a language model.

    Returns:
        A template that renders messages with text and image blocks, and renders messages of plain text as before.
    """
    return _FLATTEN + (_NO_THINKING if "enable_thinking" in template else "") + template
