"""Tokenize prompts as the processor does: parts between images by themselves, special tokens of users as text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.renderers.hf import HfRenderer
from vllm.renderers.params import ChatParams, TokenizeParams
from vllm.transformers_utils.processor import cached_processor_from_config

from slime_vlm.errors import InputError
from slime_vlm.processing.chat_markers import mark_messages, without_marks
from slime_vlm.processing.processing_slime import SlimeProcessor

QUESTION = "slime_question"
"""Ids of the question, where the selector compares with nothing else. On its way from `_tokenize_prompt`."""


class SlimeRenderer(HfRenderer):
    """vLLM's renderer with SliME's own tokenization of chats and prompts."""

    @cached_property
    def _processor(self) -> SlimeProcessor:
        return cached_processor_from_config(self.model_config, processor_cls=SlimeProcessor, tokenizer=self.tokenizer)

    def render_messages(self, messages: list[Any], params: ChatParams) -> tuple[list[Any], Any]:
        """Write messages as one prompt, with marks around what users and models said."""
        conversation, prompt = super().render_messages(mark_messages(messages, answers=False), params)
        return [_unmarked(message) for message in conversation], prompt

    async def render_messages_async(self, messages: list[Any], params: ChatParams) -> tuple[list[Any], Any]:
        """See `render_messages`."""
        marked = mark_messages(messages, answers=False)
        conversation, prompt = await super().render_messages_async(marked, params)
        return [_unmarked(message) for message in conversation], prompt

    def _tokenize_prompt(self, prompt: Any, params: TokenizeParams) -> Any:
        """Tokenize a prompt. The beginning-of-text token is added if it is missing, whatever the request says."""
        processor = self._processor
        try:
            encoded = processor.encode_prompt(prompt["prompt"])
        except InputError as error:
            raise VLLMValidationError(str(error), parameter="prompt") from error
        ids = encoded.input_ids
        has_images = bool(prompt.get("multi_modal_data") or prompt.get("multi_modal_uuids"))
        if processor.image_token_id in ids and not has_images:
            raise VLLMValidationError(
                f"the text holds {processor.image_token}, which stands for an image, and there is no image; write "
                f"\\{processor.image_token} for the word itself",
                parameter="prompt",
            )
        plain = {**prompt, "prompt": without_marks(prompt["prompt"])}
        if self.model_config.hf_config.selector_text == "question":
            asked = zip(ids, encoded.question_mask, strict=True)
            plain[QUESTION] = [token for token, is_question in asked if is_question]
        offsets = encoded.offsets if self._wants_offsets(prompt, params) else None
        return self._build_tokens_prompt(ids, plain, offset_mapping=offsets)

    def _process_tokens(self, prompt: Any, *, skip_mm_cache: bool = False) -> Any:
        return super()._process_tokens(_with_question(prompt), skip_mm_cache=skip_mm_cache)

    async def _process_tokens_async(self, prompt: Any, *, skip_mm_cache: bool = False) -> Any:
        return await super()._process_tokens_async(_with_question(prompt), skip_mm_cache=skip_mm_cache)


def _with_question(prompt: dict[str, Any]) -> dict[str, Any]:
    """Move the question to the arguments of the processor, which the request may have set in the meantime."""
    question = prompt.pop(QUESTION, None)
    given = prompt.get("mm_processor_kwargs") or {}
    if QUESTION in given:
        raise VLLMValidationError(f"{QUESTION} is no argument, the question comes from the prompt")
    if question is not None:
        prompt["mm_processor_kwargs"] = {**given, QUESTION: question}
    return prompt


def _unmarked(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, str):
        content = without_marks(content)
    elif isinstance(content, list):
        content = [
            {**block, "text": without_marks(block["text"])} if isinstance(block.get("text"), str) else block
            for block in content
        ]
    return {**message, "content": content} if "content" in message else dict(message)
