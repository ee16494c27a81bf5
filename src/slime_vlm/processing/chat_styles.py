"""Conversation styles: from turns to text with its questions and answers marked (paper section 3.4, 4.1).

A conversation becomes a list of `Segment`s, whose joined texts are the prompt. All masks follow from the kinds of the
segments, so no mask depends on how a tokenizer splits a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from slime_vlm.errors import ConfigError, DataError

IMAGE_PLACEHOLDER = "<image>"
ESCAPED_PLACEHOLDER = "\\" + IMAGE_PLACEHOLDER
"""The placeholder as a word of a text. The backslash is not tokenized."""

PLACEHOLDERS = re.compile(r"(?<!\\)" + re.escape(IMAGE_PLACEHOLDER))
"""Matches placeholders that stand for an image."""

_FIRST_IMAGES = re.compile(rf"^(?:\s*{re.escape(IMAGE_PLACEHOLDER)})+\s*")

END_OF_CONVERSATION = "<|eot_conversation|>"
"""Literal text that the published llama3 template puts after every answer."""

CONTROL_TOKENS = (
    "<user>",
    "<assistant>",
    "<bos>",
    "<eos>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
)
"""Texts that start or end a turn in well-known chat formats, for checks without a tokenizer."""

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
"""Names of the speakers of a record, in the published form and in chat messages."""


class PlaceholderError(DataError):
    """The image placeholders of a conversation do not fit its images."""


Kind = Literal["template", "question", "answer"]
_WRITTEN: tuple[Kind, Kind] = ("question", "answer")


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt.

    Attributes:
        text: The text of the piece, with image placeholders.
        kind: `template` (text of the style, and system text), `question` (text of a user) or `answer` (text that the
            model has to write, with the token that ends it).
        literal: Whether a user or a model wrote the piece. Special tokens in it are then ordinary text, so that a
            question cannot end its turn or start another one.
    """

    text: str
    kind: Kind
    literal: bool = False


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: `system`, `user` or `assistant`.
        text: Text of the message. Placeholders in it stay at their position.
        images: Number of images before the text.
        placed: The text with a placeholder for every image behind its first words, for styles that interleave. The
            other images come first. None if all images do.
    """

    role: str
    text: str
    images: int = 0
    placed: str | None = None


@dataclass(frozen=True)
class ConversationStyle:
    """How turns become text.

    Attributes:
        name: Name in processor configs and recipes.
        user_open: Text before a question.
        user_close: Text after a question.
        assistant_open: Text before an answer; a prompt for generation ends with it.
        answer_lead: Text between `assistant_open` and an answer that the model writes itself.
        assistant_close: Text that ends an answer, written by the model.
        system_open: Text before a system message.
        system_close: Text after a system message.
        default_system: System message of conversations that have none. None: no system turn.
        image_close: Text between the images and the text of a question.
        keep_question: False drops the texts of users and keeps only the images (`plain`).
        published_tail: Text that the published code leaves after every answer of a prompt.
        drops_empty_answer: True if the published code writes nothing for an empty answer, not even its end.
        interleave: Whether images stay where a user put them in the text. False moves them to its front, as published.
    """

    name: str
    user_open: str = ""
    user_close: str = ""
    assistant_open: str = ""
    answer_lead: str = ""
    assistant_close: str = ""
    system_open: str = ""
    system_close: str = ""
    default_system: str | None = None
    image_close: str = "\n"
    keep_question: bool = True
    published_tail: str = ""
    drops_empty_answer: bool = False
    interleave: bool = False


STYLES: dict[str, ConversationStyle] = {
    style.name: style
    for style in (
        ConversationStyle(
            name="llama3",
            user_open="<|start_header_id|>user<|end_header_id|>\n\n",
            user_close="<|eot_id|>",
            assistant_open="<|start_header_id|>assistant<|end_header_id|>\n\n",
            assistant_close="<|eot_id|>",
            system_open="<|start_header_id|>system<|end_header_id|>\n\n",
            system_close="<|eot_id|>",
            published_tail=END_OF_CONVERSATION,
        ),
        ConversationStyle(
            name="v1",
            user_open="USER: ",
            user_close=" ",
            assistant_open="ASSISTANT:",
            # The prompt ends at the colon, so the model writes the space.
            answer_lead=" ",
            assistant_close="</s>",
            system_close=" ",
            default_system=(
                "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
                "detailed, and polite answers to the user's questions."
            ),
            drops_empty_answer=True,
        ),
        # Stages 1 and 2 of the paper: image, caption, newline.
        ConversationStyle(name="plain", assistant_close="\n", keep_question=False),
        # The shipped small model: a single token opens a turn, and there is no other template text.
        ConversationStyle(
            name="pages", user_open="<user>", assistant_open="<assistant>", assistant_close="<eos>", image_close=""
        ),
    )
}

_ALIASES = {"vicuna_v1": "v1", "vicuna": "v1", "llama_3": "llama3"}


def get_style(name: str | ConversationStyle | Mapping[str, Any]) -> ConversationStyle:
    """Look up a conversation style by name, or build one from its fields.

    Fields that a mapping leaves out are those of the known style of its name, if there is one.

    Raises:
        ConfigError: The name or a field is unknown.
    """
    if isinstance(name, ConversationStyle):
        return name
    if isinstance(name, Mapping):
        try:
            known = STYLES.get(str(name.get("name")))
            style = ConversationStyle(**name) if known is None else replace(known, **name)
        except TypeError as error:
            raise ConfigError(f"conversation style has a wrong field ({error}), see ConversationStyle") from None
        for field in fields(style):
            value, is_switch = getattr(style, field.name), isinstance(field.default, bool)
            if not isinstance(value, bool if is_switch else str) and (field.name, value) != ("default_system", None):
                expected = "true or false" if is_switch else "a text"
                raise ConfigError(f"{field.name} of the conversation style is {value!r}, expected {expected}")
        return style
    found = STYLES.get(_ALIASES.get(name, name))
    if found is None:
        raise ConfigError(f"conversation style '{name}' is unknown, expected one of {', '.join(STYLES)}")
    return found


def role_of(message: Mapping[str, Any]) -> str | None:
    """Return the role of a message of a record, whatever the case of its name; None if there is no such role."""
    name = message.get("role") if message.get("from") is None else message["from"]
    return ROLES.get(name.strip().lower()) if isinstance(name, str) else None


def turns_from_record(conversations: Sequence[Mapping[str, str]], num_images: int | None = None) -> list[Turn]:
    """Read the turns of a training record in the published form, `[{"from": "human", "value": ...}, ...]`.

    As published, the placeholder of a turn moves to its front, several placeholders of a turn become one, and an answer
    before the first question is left out.

    Args:
        conversations: Turns of the record, with `from` and `value`, or `role` and `content`.
        num_images: Number of images of the record. If it equals the number of placeholders, every turn keeps all of its
            placeholders.

    Raises:
        DataError: A role is unknown, or roles do not alternate.
        PlaceholderError: The placeholders do not fit `num_images`, or a turn that is no question has one.
    """
    turns = []
    for index, message in enumerate(conversations):
        role = role_of(message)
        value = message.get("value", message.get("content"))
        if role is None or not isinstance(value, str):
            raise DataError(
                f"turn {index} is {dict(message)!r:.120}, expected 'from' (human or gpt) and 'value' (text); "
                "fix the record"
            )
        if role == "user":
            pieces = PLACEHOLDERS.split(value)
            text = "".join(pieces).strip() if len(pieces) > 1 else value
            behind = any(piece.strip() for piece in pieces[:-1])
            turns.append(Turn(role, text, len(pieces) - 1, _FIRST_IMAGES.sub("", value).strip() if behind else None))
        else:
            turns.append(Turn(role, value))
    first_question = next((index for index, turn in enumerate(turns) if turn.role == "user"), len(turns))
    turns = [turn for turn in turns[:first_question] if turn.role == "system"] + turns[first_question:]
    roles = [turn.role for turn in turns if turn.role != "system"]
    if not roles:
        raise DataError("the conversation has no question, expected at least one human turn; leave the record out")
    if any(role != ("user", "assistant")[index % 2] for index, role in enumerate(roles)):
        raise DataError(f"roles come as {', '.join(roles):.120}, expected user and assistant in turn; fix the record")
    if num_images is not None and any(PLACEHOLDERS.search(turn.text) for turn in turns):
        raise PlaceholderError(
            f"{IMAGE_PLACEHOLDER} stands for an image, and is in an answer, a system text or a word; write "
            f"{ESCAPED_PLACEHOLDER} for the word itself"
        )
    if num_images is None or sum(turn.images for turn in turns) != num_images:
        turns = [Turn(turn.role, turn.text, min(turn.images, 1)) for turn in turns]
    found = sum(turn.images for turn in turns)
    if num_images is not None and found != num_images:
        raise PlaceholderError(
            f"the conversation has {found} image placeholder(s) for {num_images} image(s); fix the record"
        )
    return turns


def turns_from_messages(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Read chat messages, `[{"role": "user", "content": text or blocks}, ...]`. Images go before the text of a turn.

    Raises:
        DataError: A role or a block type is unknown.
    """
    turns = []
    for message in messages:
        role = message.get("role")
        if role not in ("system", "user", "assistant"):
            raise DataError(f"a message has the role '{role}', expected system, user or assistant")
        content = message.get("content") or ""
        if isinstance(content, str):
            turns.append(Turn(role, content))
            continue
        unknown = {block.get("type") for block in content} - {"text", "image", "image_url"}
        if unknown:
            raise DataError(f"a message has content of type {sorted(map(str, unknown))}, expected text or image")
        pieces = [block["text"] if block["type"] == "text" else IMAGE_PLACEHOLDER for block in content]
        is_text = [block["type"] == "text" for block in content]
        text = "".join(piece for piece, said in zip(pieces, is_text, strict=True) if said)
        first = next((i for i, piece in enumerate(pieces) if is_text[i] and piece.strip()), len(pieces))
        placed = "".join(piece for i, piece in enumerate(pieces) if is_text[i] or i > first)
        turns.append(Turn(role, text, is_text.count(False), None if all(is_text[first:]) else placed))
    return turns


def read_turns(conversation: Sequence[Turn | Mapping[str, Any]], num_images: int | None = None) -> list[Turn]:
    """Read the turns of one conversation given as `Turn`s, a published record (of `num_images`) or chat messages."""
    if all(isinstance(turn, Turn) for turn in conversation):
        return [turn for turn in conversation if isinstance(turn, Turn)]
    mappings = [turn for turn in conversation if isinstance(turn, Mapping)]
    if mappings and all("role" in turn and "content" in turn for turn in mappings):
        return turns_from_messages(mappings)
    return turns_from_record(mappings, num_images)


def build_segments(
    turns: Sequence[Turn],
    style: ConversationStyle,
    *,
    add_generation_prompt: bool = False,
    published: bool = False,
) -> list[Segment]:
    """Write turns in a style.

    Args:
        turns: Messages in order.
        style: The style.
        add_generation_prompt: Whether to end with the text before an answer.
        published: Whether to write exactly what the published code writes, defects included: `<|eot_conversation|>`
            after every answer (llama3), and nothing, not even the end of turn, for an empty answer (v1).
    """
    segments: list[Segment] = []

    def add(text: str, kind: Kind = "template", literal: bool = False) -> None:
        if text:
            # Published code takes control tokens anywhere for control tokens.
            segments.append(Segment(text, kind, literal and not published))

    if style.default_system is not None and not (turns and turns[0].role == "system"):
        turns = [Turn("system", style.default_system), *turns]
    for turn in turns:
        if turn.role == "system":
            add(style.system_open)
            add(turn.text, literal=True)
            add(style.system_close)
        elif turn.role == "user":
            text, num_first = turn.text, turn.images
            # Deviation: not in the paper, whose prompts hold one image, before the text.
            if style.interleave and turn.placed is not None:
                text = turn.placed
                num_first -= len(PLACEHOLDERS.findall(text))
            text = text if style.keep_question else "".join(PLACEHOLDERS.findall(text))
            images = "\n".join([IMAGE_PLACEHOLDER] * num_first)
            add(style.user_open)
            add(images + (style.image_close if images and text else ""))
            add(text, "question", literal=True)
            add(style.user_close)
        else:
            add(style.assistant_open)
            # Deviation: the published v1 prompt has no end of turn for an empty answer. Here empty answers are learned.
            if turn.text or not (published and style.drops_empty_answer):
                lead = style.answer_lead if turn.text else ""
                add(lead + turn.text, "answer", literal=True)
                add(style.assistant_close, "answer")
            # Deviation: the published llama3 prompt leaves a literal <|eot_conversation|>, which is not in training.
            add(style.published_tail if published else "")
    if add_generation_prompt:
        add(style.assistant_open)
    return segments


def build_prompt(
    turns: Sequence[Turn], style: ConversationStyle, *, add_generation_prompt: bool = True, published: bool = False
) -> str:
    """Write turns as one string, see `build_segments`. The tokenizer adds the beginning-of-text token."""
    segments = build_segments(turns, style, add_generation_prompt=add_generation_prompt, published=published)
    return "".join(segment.text for segment in segments)


def write_chat_template(style: ConversationStyle) -> str:
    """Write a style as a Jinja chat template that renders messages exactly as `build_segments` does.

    The variable `published` (default false) switches the published defects on. Answers are in generation blocks, so
    that `return_assistant_tokens_mask` works.
    """

    def put(text: str) -> str:
        return "{{- " + json.dumps(text, ensure_ascii=False) + " -}}" if text else ""

    image = json.dumps(IMAGE_PLACEHOLDER)
    lines = []
    if style.default_system is not None:
        system = put(style.system_open + style.default_system + style.system_close)
        lines.append("{%- if not messages or messages[0]['role'] != 'system' -%}" + system + "{%- endif -%}")
    lines += [
        "{%- for message in messages -%}",
        # A for loop has its own scope in Jinja. Only a namespace carries values out of the loop over blocks.
        "{%- set part = namespace(text='', images=0) -%}",
        "{%- if message['content'] is string -%}{%- set part.text = message['content'] -%}",
        "{%- elif message['content'] -%}",
        "{%- for block in message['content'] -%}",
        "{%- if block['type'] == 'text' -%}{%- set part.text = part.text + block['text'] -%}",
        *(
            ["{%- elif part.text | trim -%}{%- set part.text = part.text + " + image + " -%}"]
            if style.interleave
            else []
        ),
        "{%- else -%}{%- set part.images = part.images + 1 -%}{%- endif -%}",
        "{%- endfor -%}",
        "{%- endif -%}",
        "{%- if message['role'] == 'system' -%}",
        put(style.system_open) + "{{- part.text -}}" + put(style.system_close),
        "{%- elif message['role'] == 'user' -%}",
        *([] if style.keep_question else [_ONLY_IMAGES % (image, image)]),
        put(style.user_open),
        "{%- if part.images -%}{{- ([" + image + "] * part.images) | join('\\n') -}}",
        "{%- if part.text -%}" + put(style.image_close) + "{%- endif -%}{%- endif -%}",
        "{{- part.text -}}",
        put(style.user_close),
        "{%- elif message['role'] == 'assistant' -%}",
        put(style.assistant_open),
        "{%- generation -%}",
        "{%- if part.text -%}" + put(style.answer_lead) + "{{- part.text -}}" + put(style.assistant_close),
        "{%- elif not (published is defined and published"
        + (")" if style.drops_empty_answer else " and false)")
        + " -%}"
        + put(style.assistant_close)
        + "{%- endif -%}",
        "{%- endgeneration -%}",
        *(
            ["{%- if published is defined and published -%}" + put(style.published_tail) + "{%- endif -%}"]
            if style.published_tail
            else []
        ),
        "{%- else -%}{{- raise_exception('role ' ~ message['role'] ~ ' is unknown') -}}",
        "{%- endif -%}",
        "{%- endfor -%}",
        "{%- if add_generation_prompt -%}" + put(style.assistant_open) + "{%- endif -%}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


_ONLY_IMAGES = "{%%- set part.text = %s * (part.text.split(%s) | length - 1) -%%}"


def find_segments(prompt: str, style: ConversationStyle, *, add_generation_prompt: bool = True) -> list[Segment]:
    """Find questions and answers in a prompt that was written as text, by the texts of a style around them.

    If the prompt does not contain them, all of it is one question.
    """
    if not (style.user_open and style.assistant_open):
        return [Segment(prompt, "question")]
    pattern = re.compile(
        re.escape(style.user_open)
        + "(?P<question>.*?)"
        + re.escape(style.user_close + style.assistant_open)
        + "(?P<answer>.*?"
        + (re.escape(style.assistant_close) if style.assistant_close else "")
        + "|)",
        re.DOTALL,
    )
    segments: list[Segment] = []
    position = 0
    for match in pattern.finditer(prompt):
        for kind in _WRITTEN:
            start, end = match.span(kind)
            segments += [Segment(prompt[position:start], "template"), Segment(prompt[start:end], kind)]
            position = end
    if not segments:
        return [Segment(prompt, "question")]
    return [segment for segment in [*segments, Segment(prompt[position:], "template")] if segment.text]
