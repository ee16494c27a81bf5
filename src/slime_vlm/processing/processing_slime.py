"""The processor: turns conversations and images into the inputs of the model (paper section 3.1, 3.4).

Each image placeholder is repeated once per token of the image before selection (`tiling.TokenLayout`). The model then
shortens the rows to the local tokens that a question keeps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from slime_vlm.errors import ConfigError, DataError, InputError, MediaError
from slime_vlm.media import open_image
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.hub_mixin import HubMixin
from slime_vlm.model.hub_stub import PROCESSOR_AUTO_MAP, write_stub
from slime_vlm.model.image_inputs import images_as_rows
from slime_vlm.model.tiling import TokenLayout, choose_grid
from slime_vlm.processing.chat_markers import mark_messages, parse_marks
from slime_vlm.processing.chat_rendering import ChatRenderingMixin
from slime_vlm.processing.chat_styles import (
    IMAGE_PLACEHOLDER,
    ConversationStyle,
    Segment,
    Turn,
    find_segments,
    get_style,
    read_turns,
    write_chat_template,
)
from slime_vlm.processing.collation import match_images, pad_rows, padded_length
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor, as_rgb
from slime_vlm.processing.tokenization import EncodedText, encode_conversation, encode_segments

_EXTRAS = {
    "offset_mapping": "return_offsets_mapping",
    "text_replacement_offsets": "return_text_replacement_offsets",
    "mm_token_type_ids": "return_mm_token_type_ids",
}
"""Outputs that are there on request, by the option that requests them."""


class SlimeProcessor(ChatRenderingMixin, HubMixin, ProcessorMixin):
    """Image processor, tokenizer and conversation style of a SliME model.

    Args:
        image_processor: Cuts images into views.
        tokenizer: A fast tokenizer. `image_token` is added to it if it is missing.
        chat_template: Jinja template. Default: that of `conversation_style`, else the tokenizer's.
        image_token: Text that stands for an image.
        conversation_style: `llama3`, `v1`, `plain`, `pages`, the fields of a `ConversationStyle`, or None for a
            model that only has a chat template.
        num_global_tokens: Tokens of the global view (N), 0 if the model does not use it.
        num_tile_tokens: Tokens of one tile (Q), 0 if the model does not use tiles.
        num_separators: 1 if the model puts a separator between the two, else 0.
        batch_layout: "views": one row per view in `pixel_values`, with `image_grids` and `question_mask`. "images": one
            row per image, with `image_sizes` and `token_type_ids`, for code that slices batches by images and knows no
            other names (TRL). The model takes both.

    Raises:
        ConfigError: The conversation style or layout is unknown, or the image token is more than one token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | dict[str, str] | None = None,
        image_token: str = IMAGE_PLACEHOLDER,
        conversation_style: str | dict[str, Any] | None = None,
        num_global_tokens: int = 576,
        num_tile_tokens: int = 144,
        num_separators: int = 1,
        batch_layout: str = "views",
    ) -> None:
        if batch_layout not in ("views", "images"):
            raise ConfigError(f"batch_layout is '{batch_layout}', expected 'views' or 'images'")
        self.batch_layout = batch_layout
        self.image_token = image_token
        self.conversation_style = conversation_style
        self.num_global_tokens = num_global_tokens
        self.num_tile_tokens = num_tile_tokens
        self.num_separators = num_separators
        self.style: ConversationStyle | None = None if conversation_style is None else get_style(conversation_style)
        if image_token not in tokenizer.get_vocab():
            tokenizer.add_tokens([image_token], special_tokens=True)
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(image_token)
        if chat_template is None:
            chat_template = write_chat_template(self.style) if self.style else getattr(tokenizer, "chat_template", None)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.auto_map = dict(PROCESSOR_AUTO_MAP)
        # Of the folder that it was read from. A tokenizer that is saved alone needs none.
        tokenizer.init_kwargs.pop("auto_map", None)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Save as every processor does, with the stub module that the `auto_map` of its files names."""
        write_stub(save_directory)
        # tokenizer_config.json names this class, too, and AutoProcessor may read it there.
        self.tokenizer.init_kwargs["auto_map"] = dict(PROCESSOR_AUTO_MAP)
        try:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        finally:
            del self.tokenizer.init_kwargs["auto_map"]

    @classmethod
    def from_config(
        cls,
        config: SlimeConfig,
        tokenizer: Any,
        conversation_style: str | dict[str, Any] | None = None,
        image_processor: Any = None,
        chat_template: str | None = None,
    ) -> SlimeProcessor:
        """Build the processor that fits a model's config, and set `config.image_token_id` to the tokenizer's."""
        image_processor = image_processor or SlimeImageProcessor()
        processor = cls(image_processor, tokenizer, chat_template, conversation_style=conversation_style)
        config.image_token_id = processor.image_token_id
        return processor.follow(config)

    def follow(self, config: SlimeConfig) -> SlimeProcessor:
        """Take views and token counts from a config, and return the processor itself.

        Raises:
            ConfigError: The config has another image token than the tokenizer.
        """
        if config.image_token_id != self.image_token_id:
            raise ConfigError(
                f"the config's image_token_id is {config.image_token_id}, the tokenizer's {self.image_token} is "
                f"{self.image_token_id}; use the tokenizer that belongs to the model"
            )
        layout = config.token_layout
        self.num_global_tokens = layout.num_global_tokens
        self.num_tile_tokens = layout.num_tile_tokens
        self.num_separators = layout.num_separators
        self.image_processor.view_size = config.view_size
        self.image_processor.max_tiles = config.max_tiles
        self.image_processor.tile_margin = config.tile_margin
        return self

    def use_style(self, style: str | dict[str, Any]) -> SlimeProcessor:
        """Take another conversation style with its chat template, and return the processor itself.

        Example: `processor.use_style({"name": "llama3", "interleave": True})` leaves images where users put them.

        Raises:
            ConfigError: The style is unknown.
        """
        self.style = get_style(style)
        self.conversation_style = style
        self.chat_template = write_chat_template(self.style)
        return self

    @property
    def token_layout(self) -> TokenLayout:
        """Numbers of tokens of the parts of an image before selection."""
        return TokenLayout(self.num_global_tokens, self.num_tile_tokens, self.num_separators)

    @property
    def _closing(self) -> str | None:
        return self.style.assistant_close if self.style else None

    @property
    def model_input_names(self) -> list[str]:
        """Names of all model inputs that `__call__` may return."""
        of_layout = {"views": ["image_grids", "question_mask"], "images": ["image_sizes", "token_type_ids"]}
        return ["input_ids", "attention_mask", "pixel_values", *of_layout[self.batch_layout]]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_labels: bool = False,
        image_grids: Sequence[Sequence[int]] | None = None,
        batch_layout: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Process prompts that are already written, and their images.

        Questions (and answers) are found by the texts of the conversation style around them. A prompt without these is
        one question. `apply_chat_template` and `encode_conversations` know them exactly.

        Args:
            images: Images of all prompts in the order of their placeholders: one, a list, or a list per prompt.
                Each is a PIL image, array, path or URL.
            text: One prompt or several, with one `<image>` per image.
            return_labels: Whether to add `labels`, and to mark the question of every turn instead of the last one.
            image_grids: (rows, columns) of every image, instead of `images` that the model has encoded already
                (`VisionTokens`). No pixels are processed.
            batch_layout: "views" or "images" instead of the processor's layout.
            **kwargs: `padding` (default True), `padding_side` (default: the tokenizer's, right with labels),
                `max_length`, `truncation`, `return_tensors` (default "pt"), `add_special_tokens`, and the arguments of
                the image processor.

        Returns:
            `input_ids`, `attention_mask` and `question_mask` [B, S]; with `return_labels` also `labels` [B, S]; with
            images also `pixel_values` [V, 3, H, W] and `image_grids` [I, 2] (rows, columns). With `batch_layout`
            "images": `token_type_ids` instead of `question_mask`, `pixel_values` [I, v, 3, H, W] and `image_sizes`.

        Raises:
            InputError: There is no text, a text is empty, or placeholders and images do not fit.
            MediaError: A path or URL in `images` cannot be opened as an image.
        """
        if _is_text(images) and text is not None and not _is_text(text):
            raise InputError(
                "images holds text, and text holds images: the order is processor(images, text); name the arguments, "
                "as in processor(text=..., images=...)"
            )
        if text is None:
            raise InputError("there is no text, expected one prompt or a list of prompts; pass text=")
        rows = [text] if isinstance(text, str) else list(text)
        layout = batch_layout or self.batch_layout
        segments = []
        for index, row in enumerate(rows):
            if not isinstance(row, str):
                raise InputError(f"prompt {index} is of type {type(row).__name__}, expected text")
            found, is_marked = self._segments(row)
            # In the layout for other trainers every question of an answered conversation counts, as in training.
            is_learnt = return_labels or (layout == "images" and _ends_with_answer(found))
            is_final = is_marked and layout == "views"
            segments.append(found if is_learnt or is_final else _only_last_question(found))
        merged = self._merge_kwargs(ProcessingKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        text_kwargs = merged["text_kwargs"]
        if "left" in (kwargs.get("truncation_side"), kwargs.get("text_kwargs", {}).get("truncation_side")):
            raise InputError("truncation_side 'left' would cut the head of the prompt, expected 'right'; leave it out")
        if kwargs.get("sanitize_control_tokens"):
            raise InputError("sanitize_control_tokens is not supported, remove special tokens from the text beforehand")
        add_special_tokens = text_kwargs.get("add_special_tokens", True)
        encoded = []
        for index, row_segments in enumerate(segments):
            if not "".join(segment.text for segment in row_segments).strip():
                raise InputError(f"prompt {index} is empty, expected a question")
            encoded.append(
                encode_segments(
                    self.tokenizer,
                    row_segments,
                    self.image_token_id,
                    image_token=self.image_token,
                    add_special_tokens=add_special_tokens,
                )
            )
        return self._assemble(
            encoded,
            images,
            return_labels=return_labels,
            batch_layout=layout,
            image_grids=image_grids,
            images_kwargs=merged["images_kwargs"],
            padding=text_kwargs.get("padding", True),
            padding_side=kwargs.get("padding_side", kwargs.get("text_kwargs", {}).get("padding_side")),
            max_length=text_kwargs.get("max_length"),
            pad_to_multiple_of=text_kwargs.get("pad_to_multiple_of"),
            truncation=bool(text_kwargs.get("truncation", False)),
            return_tensors=kwargs.get("return_tensors", text_kwargs.get("return_tensors", "pt")),
            # Some versions of transformers have these options in `text_kwargs`, others beside them.
            extras={name: bool(text_kwargs.get(option) or merged.get(option)) for name, option in _EXTRAS.items()},
        )

    def encode_prompt(self, text: str) -> EncodedText:
        """Tokenize one prompt as `__call__` does, with a single placeholder per image. For engines that expand it.

        Args:
            text: The prompt, with the marks of `mark_messages` or without.

        Raises:
            InputError: The text is empty.
        """
        found, is_marked = self._segments(text)
        if not "".join(segment.text for segment in found).strip():
            raise InputError("the prompt is empty, expected a question")
        segments = found if is_marked else _only_last_question(found)
        return encode_segments(self.tokenizer, segments, self.image_token_id, image_token=self.image_token)

    def _segments(self, text: str) -> tuple[list[Segment], bool]:
        """Find the segments of a prompt, and tell whether marks named them."""
        marked = parse_marks(text, self.tokenizer, self._closing)
        found = marked or (find_segments(text, self.style) if self.style else [Segment(text, "question")])
        return found, marked is not None

    def encode_conversations(
        self,
        conversations: Sequence[Sequence[Turn | Mapping[str, Any]]],
        images: Any = None,
        *,
        image_grids: Sequence[Sequence[int]] | None = None,
        return_labels: bool = True,
        label_rule: str = "answers",
        style: str | ConversationStyle | None = None,
        max_length: int | None = None,
        padding: bool | str = True,
        padding_side: str | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Process whole conversations for training.

        Args:
            conversations: Rows. A row is a list of `Turn`s, of published records (`from`, `value`) or of messages
                (`role`, `content`).
            images: As in `__call__`. With a list per row, a record may have several images in a turn.
            image_grids: As in `__call__`.
            return_labels: Whether to add `labels`: answers with their end of turn, -100 elsewhere.
            label_rule: `answers` or `published`, see `tokenization.encode_conversation`.
            style: A conversation style to use instead of the processor's (`plain` in stages 1 and 2).
            max_length: Cut rows without an image to this length.
            padding: Whether to pad.
            padding_side: `left` or `right`. Default: right with labels.
            return_tensors: Type of the result.

        Raises:
            DataError: A conversation has roles or placeholders that do not fit.
            InputError: Placeholders and images do not fit.
            ConfigError: A style or label rule is unknown.
        """
        used = self.style if style is None else get_style(style)
        if used is None and label_rule != "answers":
            raise ConfigError(f"label_rule '{label_rule}' needs a conversation style, this model has only a template")
        nested = isinstance(images, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in images)
        numbers = [len(row) for row in images] if nested and len(images) == len(conversations) else None
        encoded = []
        for index, conversation in enumerate(conversations):
            turns = read_turns(conversation, numbers[index] if numbers else None)
            if used is None:
                encoded.append(self._encode_by_template(turns))
            else:
                encoded.append(
                    encode_conversation(
                        self.tokenizer, turns, used, self.image_token_id, label_rule=label_rule, max_length=max_length
                    )
                )
        return self._assemble(
            encoded,
            images,
            image_grids=image_grids,
            return_labels=return_labels,
            padding=padding,
            padding_side=padding_side,
            return_tensors=return_tensors,
        )

    def _encode_by_template(self, turns: Sequence[Turn]) -> EncodedText:
        """Encode turns for a model that only has a chat template."""
        messages = [
            {"role": turn.role, "content": [{"type": "image"}] * turn.images + [{"type": "text", "text": turn.text}]}
            for turn in turns
        ]
        try:
            text = self.apply_chat_template(mark_messages(messages, answers=True))
        except InputError as error:
            raise DataError(f"{error}; fix the record") from None
        segments = parse_marks(text, self.tokenizer, self._closing)
        assert segments is not None
        return encode_segments(self.tokenizer, segments, self.image_token_id, image_token=self.image_token)

    def _assemble(
        self,
        rows: list[EncodedText],
        images: Any,
        *,
        return_labels: bool,
        padding: bool | str,
        padding_side: str | None,
        return_tensors: str | None,
        batch_layout: str = "views",
        image_grids: Sequence[Sequence[int]] | None = None,
        images_kwargs: dict[str, Any] | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        truncation: bool = False,
        extras: Mapping[str, bool] | None = None,
    ) -> BatchFeature:
        """Process the images, expand their placeholders and pad the rows."""
        per_row = [row.input_ids.count(self.image_token_id) for row in rows]
        known = images is None and image_grids is not None
        flat = match_images(list(range(len(image_grids or ()))) if known else images, per_row, self.image_token)
        data: dict[str, Any] = {}
        if flat and not known:
            images_kwargs = {key: value for key, value in (images_kwargs or {}).items() if key != "return_tensors"}
            data = dict(self.image_processor(images=self._open(flat), return_tensors="pt", **images_kwargs))
        grids = {"image_grids": image_grids} if known else data
        counts = [len(self.replace_image_token(grids, index)) // len(self.image_token) for index in range(len(flat))]
        expanded, first, replaced = [], 0, []
        for row, number in zip(rows, per_row, strict=True):
            row_counts = counts[first : first + number]
            expanded.append(row.expand_images(self.image_token_id, row_counts))
            replaced.append(row.image_replacements(self.image_token_id, self.image_token, row_counts))
            first += number
        if truncation and max_length is not None:
            expanded = [self._truncate(row, max_length, index) for index, row in enumerate(expanded)]
        side = padding_side or ("right" if return_labels else self.tokenizer.padding_side)
        extras = extras or {}
        pad_id = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        text = pad_rows(
            expanded,
            padded_length(expanded, padding, max_length, pad_to_multiple_of),
            side,
            pad_id,
            self.image_token_id,
        )
        if batch_layout == "images":
            del text["question_mask"]
            if "pixel_values" in data:
                view_size = data["pixel_values"].shape[-1]
                views, sizes = images_as_rows(data["pixel_values"], data["image_grids"], view_size)
                data = {"pixel_values": views, "image_sizes": sizes}
        else:
            del text["token_type_ids"]
        if not return_labels:
            del text["labels"]
        if not extras.get("offset_mapping"):
            del text["offset_mapping"]
        if extras.get("text_replacement_offsets"):
            text["text_replacement_offsets"] = replaced
        if extras.get("mm_token_type_ids"):
            text["mm_token_type_ids"] = [[int(i == self.image_token_id) for i in row] for row in text["input_ids"]]
        if return_tensors is not None and len({len(ids) for ids in text["input_ids"]}) > 1:
            raise InputError("rows of different lengths cannot be one tensor, pass padding=True or return_tensors=None")
        return BatchFeature(
            {**text, **data}, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion
        )

    def _open(self, images: list[Any]) -> list[Any]:
        """Open local files by our own rules. transformers fetches the rest (URLs, base64)."""
        opened: list[Any] = []
        for image in images:
            # os.path, unlike pathlib, does not fail on a long base64 string.
            if isinstance(image, Path) or (isinstance(image, str) and os.path.isfile(image)):
                opened.append(open_image(image))
            elif not isinstance(image, str) and getattr(image, "ndim", None) == 2:
                # transformers takes no grey array in a list.
                opened.append(as_rgb(image))
            else:
                opened.append(self._fetch(image))
        return opened

    def _fetch(self, image: Any) -> Any:
        try:
            return self.image_processor.fetch_images(image)
        except ValueError:
            # Its message holds the text whole, which may be megabytes of base64.
            raise MediaError(
                f"{image!s:.80}: no such file, and neither an address (https://...) nor the base64 text of an image"
            ) from None

    def _truncate(self, row: EncodedText, max_length: int, index: int) -> EncodedText:
        if self.image_token_id in row.input_ids[max_length:]:
            raise InputError(
                f"row {index} has {len(row.input_ids)} tokens and max_length {max_length} would cut through its "
                "images; raise max_length or set truncation=False"
            )
        return row.cut(max_length)

    def replace_image_token(self, image_inputs: Mapping[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return the text that replaces a placeholder: the image token once per token of the image before selection."""
        rows, cols = (int(side) for side in image_inputs["image_grids"][image_idx])
        return self.image_token * self.token_layout.num_image_tokens(rows, cols)

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[tuple[int, int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Count tokens and views of images of given (height, width) without their pixels."""
        if image_sizes is None:
            return MultiModalData()
        view_size = kwargs.get("view_size", self.image_processor.view_size)
        max_tiles = kwargs.get("max_tiles", self.image_processor.max_tiles)
        margin = kwargs.get("tile_margin", self.image_processor.tile_margin)
        grids = [choose_grid(int(height), int(width), view_size, max_tiles, margin) for height, width in image_sizes]
        return MultiModalData(
            num_image_tokens=[self.token_layout.num_image_tokens(grid.rows, grid.cols) for grid in grids],
            num_image_patches=[grid.num_views for grid in grids],
        )


def _is_text(value: Any) -> bool:
    """Whether a value is a prompt or a list of prompts. Paths of images are text, too."""
    rows = value if isinstance(value, (list, tuple)) else [value]
    return len(rows) > 0 and all(isinstance(row, str) for row in rows)


def _only_last_question(segments: Sequence[Segment]) -> list[Segment]:
    last = max((index for index, segment in enumerate(segments) if segment.kind == "question"), default=-1)
    return [
        replace(segment, kind="template") if segment.kind == "question" and index != last else segment
        for index, segment in enumerate(segments)
    ]


def _ends_with_answer(segments: Sequence[Segment]) -> bool:
    kinds = [segment.kind for segment in segments if segment.kind in ("question", "answer")]
    return bool(kinds) and kinds[-1] == "answer"


__all__ = ["SlimeProcessor"]
