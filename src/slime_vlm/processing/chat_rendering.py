"""Render messages by a chat template, and process them: `apply_chat_template` of the processor.

transformers' own differs from version to version. 5.19 to 5.22 render a content of None as the word, take some
variables of a template for arguments of the processor, and misplace assistant masks. This one is built on
`render_jinja_template`, which all of them have. Templates that came with a checkpoint are rendered within limits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers.processing_utils import ProcessingKwargs, TextKwargs
from transformers.utils.chat_template_utils import render_jinja_template

from slime_vlm.errors import ConfigError, InputError, one_line
from slime_vlm.processing import limited_rendering
from slime_vlm.processing.chat_markers import mark_messages, position_without_marks
from slime_vlm.processing.chat_styles import ConversationStyle
from slime_vlm.processing.image_processing_slime import SlimeImageProcessorKwargs
from slime_vlm.processing.limited_rendering import is_own
from slime_vlm.processing.tokenization import adds_bos

Conversation = list[dict[str, Any]]

_PROCESSOR_OPTIONS = {
    "batch_layout",
    "images",
    "image_grids",
    "return_labels",
    "return_tensors",
    "sanitize_control_tokens",
    *(name for kind in (TextKwargs, SlimeImageProcessorKwargs, ProcessingKwargs) for name in kind.__annotations__),
}
"""Arguments of the processor. Every other argument of `apply_chat_template` is a variable of the template."""

_SOURCES = ("image", "url", "path", "base64")
_REFUSED = ("video", "audio")


class ChatRenderingMixin:
    """`apply_chat_template` in the same way with every version of transformers."""

    tokenizer: Any
    chat_template: str | dict[str, str] | None
    style: ConversationStyle | None
    batch_layout: str
    __call__: Callable[..., Any]

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        tools: list[Any] | None = None,
        documents: list[dict[str, str]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = "auto",
        return_dict: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render messages by the chat template, and process them if `tokenize` is set.

        The arguments are those of transformers' `ProcessorMixin.apply_chat_template`, with the same meaning in every
        version. With `tokenize`, the question mask comes from the messages themselves, and so do the labels with
        `processor_kwargs={"return_labels": True}`. The end of an answer without text is not labelled here, but
        `encode_conversations` labels it.

        Args:
            conversation: Messages, or a list of conversations.
            chat_template: A template, or the name of one of several. Default: the processor's.
            tools: Passed to the template.
            documents: Passed to the template.
            add_generation_prompt: Whether to start the answer.
            continue_final_message: Whether to leave the last message open.
            return_assistant_tokens_mask: Whether to add `assistant_masks`: 1 on tokens that the template marks.
            tokenize: Whether to process the text and the images.
            return_tensors: Type of the result. "auto" is that of `__call__`.
            return_dict: Whether to return all inputs, not only `input_ids`.
            processor_kwargs: Arguments of `__call__`, among them `images` for blocks without one.
            **kwargs: Variables of the template. Names of `__call__`'s arguments are passed on to it as well.

        Returns:
            The text, or a list of texts; with `tokenize` a `BatchFeature`, or `input_ids` alone.

        Raises:
            InputError: There is no message, one cannot be read, or arguments exclude each other.
            ConfigError: There is no such template.
            CheckpointError: A template of the checkpoint takes too much time or memory, or writes too much.
        """
        conversations, is_batch = read_conversations(conversation)
        if continue_final_message and (add_generation_prompt or return_assistant_tokens_mask):
            raise InputError(
                "continue_final_message came with add_generation_prompt or return_assistant_tokens_mask, expected it "
                "alone; leave the others out"
            )
        options = {
            **{name: value for name, value in kwargs.items() if name in _PROCESSOR_OPTIONS},
            **(processor_kwargs or {}),
        }
        template, is_given = self._template(chat_template)
        # A template that the caller wrote is as trustworthy as the caller's code.
        is_trusted = is_given or is_own(template, self.style)
        for_trainers = options.get("batch_layout", self.batch_layout) == "images"
        if for_trainers and "bos_token" not in template and adds_bos(self.tokenizer):
            # TRL leaves it to the template, and tells the tokenizer not to add it.
            template = "{{- bos_token -}}" + template
        if tokenize:
            # In the layout for other trainers, a conversation without the start of an answer is one to be learnt.
            is_learnt = for_trainers and not add_generation_prompt
            conversations = mark_messages(conversations, answers=bool(options.get("return_labels")) or is_learnt)
        variables = {
            "chat_template": template,
            "documents": documents,
            "return_assistant_tokens_mask": return_assistant_tokens_mask,
            "continue_final_message": continue_final_message,
            "add_generation_prompt": add_generation_prompt,
            **self.tokenizer.special_tokens_map,
            **kwargs,
        }
        if is_trusted:
            try:
                texts, spans = render_jinja_template(conversations=conversations, tools=tools, **variables)
            except TemplateError as error:
                raise InputError(f"the chat template does not take the messages: {one_line(error)}") from None
        else:
            texts, spans = limited_rendering.render(conversations, tools, **variables)
        text = texts if is_batch else texts[0]
        if not tokenize:
            return text
        sources = image_sources(conversations)
        images = options.pop("images", None) or (sources if any(sources) else None)
        if self.tokenizer.bos_token is not None and texts[0].startswith(self.tokenizer.bos_token):
            options["add_special_tokens"] = False
        if return_tensors != "auto":
            options["return_tensors"] = return_tensors
        if return_assistant_tokens_mask:
            options |= {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
        inputs = self(images=images, text=text, **options)
        if return_assistant_tokens_mask:
            offsets, replacements = inputs.pop("offset_mapping"), inputs.pop("text_replacement_offsets")
            inputs["assistant_masks"] = [
                assistant_mask(
                    row.tolist() if hasattr(row, "tolist") else row,
                    replacements[index],
                    [[position_without_marks(texts[index], end) for end in span] for span in spans[index]],
                )
                for index, row in enumerate(offsets)
            ]
            inputs.convert_to_tensors(tensor_type=None if return_tensors == "auto" else return_tensors)
        return inputs if return_dict else inputs["input_ids"]

    def _template(self, name: str | None) -> tuple[str, bool]:
        """Return the processor's template, one of its templates by name, or the given one, and whether it was given."""
        own = self.chat_template
        if name is not None:
            return (own[name], False) if isinstance(own, dict) and name in own else (name, name != own)
        if own is None:
            raise ConfigError("this processor has no chat template; pass chat_template= or a conversation style")
        if not isinstance(own, dict):
            return own, False
        if "default" not in own:
            raise ConfigError(f"there is no default chat template, expected the name of one of {', '.join(own)}")
        return own["default"], False


def read_conversations(conversation: Any) -> tuple[list[Conversation], bool]:
    """Copy messages into one form: no key is None, and an `image_url` block is an image block.

    Args:
        conversation: Messages, or a list of conversations.

    Returns:
        A list of conversations, and whether it was one already.

    Raises:
        InputError: There is no message, a message or block is not a mapping, or there is a video or sound.
    """
    if not conversation:
        raise InputError("there is no message, expected at least one from the user")
    is_batch = isinstance(conversation[0], (list, tuple)) or hasattr(conversation[0], "messages")
    conversations = conversation if is_batch else [conversation]
    return [[_read_message(message) for message in getattr(part, "messages", part)] for part in conversations], is_batch


def _read_message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InputError(f"a message is of type {type(message).__name__}, expected a mapping with role and content")
    # A template would write None as a word. It handles a missing key.
    fields = {key: value for key, value in message.items() if value is not None}
    if isinstance(fields.get("content"), (list, tuple)):
        fields["content"] = [_read_block(block) for block in fields["content"]]
    return fields


def _read_block(block: Any) -> Any:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if not isinstance(kind, str):
        # A template would take it for an image.
        raise InputError(f"a message has the block {block!r:.80}, expected a mapping with 'type', such as 'text'")
    if any(word in kind for word in _REFUSED):
        raise InputError(f"a message has a block of type {kind!r}, expected text and image; pass frames as images")
    if kind not in ("text", "image", "image_url"):
        raise InputError(f"a message has a block of type {kind!r}, expected 'text' or 'image'")
    if kind == "text" and not isinstance(block.get("text"), str):
        raise InputError(f"a message has the block {block!r:.80}, expected a text under 'text'")
    if kind == "image_url":
        address = block.get("image_url")
        return {"type": "image", "url": address.get("url") if isinstance(address, Mapping) else address}
    return block


def image_sources(conversations: Iterable[Conversation]) -> list[list[Any]]:
    """List the images that come with the image blocks of every conversation, as objects, paths, URLs or base64."""
    return [
        [
            block[key]
            for message in conversation
            if isinstance(message.get("content"), list)
            for block in message["content"]
            if isinstance(block, Mapping) and block.get("type") == "image"
            for key in _SOURCES
            if block.get(key) is not None
        ]
        for conversation in conversations
    ]


def assistant_mask(
    offsets: Iterable[Sequence[int]], replacements: Sequence[Mapping[str, Any]], spans: Iterable[Sequence[int]]
) -> list[int]:
    """Mark the tokens of a row that a chat template writes as the assistant's.

    Args:
        offsets: (first, last + 1) character of every token, in the text with repeated placeholders. Padding is empty.
        replacements: Spans of the placeholders before and after they are repeated, see `image_replacements`.
        spans: (first, last + 1) characters of the assistant's, in the text before placeholders are repeated.
    """
    ends = [entry["span"][1] for entry in replacements]
    gained = [0, *(entry["new_span"][1] - entry["span"][1] for entry in replacements)]
    moved = [[position + gained[bisect_right(ends, position)] for position in span] for span in spans]
    return [int(any(first < stop and last > start for start, stop in moved)) for first, last in offsets]
