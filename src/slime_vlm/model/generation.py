"""Generation over rows whose length changes when images are merged in.

`generate` counts tokens of `input_ids`, the cache counts tokens of the merged rows. The record on the cache
(`cached_rows`) has the tokens that it holds, and their positions. This mixin passes its mask and positions to every
step. Cropped caches (speculative decoding) and caches of earlier turns therefore continue at the right position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import DynamicCache
from transformers.utils import ModelOutput

from slime_vlm.errors import InputError
from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.cached_rows import CachedRows, record_of
from slime_vlm.model.growing_cache import grow_in_place
from slime_vlm.model.image_inputs import QUESTION, views_as_rows
from slime_vlm.model.input_checks import check_tensors
from slime_vlm.model.token_merging import image_rows

_IMAGE_INPUTS = ("pixel_values", "image_grids", "question_mask", "vision_tokens", "kept_local_tokens")
_TENSORS = (
    "attention_mask",
    "position_ids",
    "inputs_embeds",
    "pixel_values",
    "image_grids",
    "image_sizes",
    "question_mask",
    "token_type_ids",
)


class SlimeGenerationMixin(GenerationMixin):
    """`generate` with images: any padding side, cached or not, beams and several answers per prompt."""

    def generate(
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, **kwargs: Any
    ) -> Any:
        """Generate as every transformers model does, but never the image placeholder, which is not text.

        Raises:
            InputError: The requested kind of speculative decoding does not work with images. Or an input is no tensor.
        """
        given_ids = kwargs.get("input_ids") if inputs is None else inputs
        check_tensors(input_ids=given_ids, **{name: kwargs.get(name) for name in _TENSORS})
        mask = kwargs.get("attention_mask")
        for name, value in (("input_ids", given_ids), ("attention_mask", mask)):
            if value is not None and value.ndim != 2:
                raise InputError(f"{name} has shape {list(value.shape)}, expected [rows, tokens]")
        embeds = kwargs.get("inputs_embeds")
        if embeds is not None and embeds.ndim != 3:
            raise InputError(f"inputs_embeds has shape {list(embeds.shape)}, expected [rows, tokens, width]")
        kwargs.update(_views_as_rows(kwargs, self.config.view_size))
        config = generation_config or self.generation_config
        in_vocabulary = self.config.image_token_id < self.config.text_config.vocab_size
        if in_vocabulary:
            given = kwargs.get("suppress_tokens") or config.suppress_tokens or []
            kwargs["suppress_tokens"] = [*given, self.config.image_token_id]
        for name in ("assistant_model", "assistant_early_exit"):
            if kwargs.get(name) is not None or getattr(config, name, None) is not None:
                raise InputError(
                    f"{name} is not supported, since a draft model does not get the images; leave it out, or use "
                    "prompt_lookup_num_tokens"
                )
        if kwargs.get("prompt_lookup_num_tokens", getattr(config, "prompt_lookup_num_tokens", None)) is not None:
            if not in_vocabulary:
                raise InputError(
                    f"prompt_lookup_num_tokens needs an image placeholder inside the vocabulary of "
                    f"{self.config.text_config.vocab_size} tokens, and its id is {self.config.image_token_id}; leave "
                    "prompt_lookup_num_tokens out"
                )
            self._select_before_drafts(inputs, kwargs)
        return super().generate(inputs, generation_config, **kwargs)

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        given = model_kwargs.get(CACHE)
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        made = model_kwargs.get(CACHE)
        # Who names the kind, "dynamic" for example, gets what transformers makes.
        if given is None and type(made) is DynamicCache and generation_config.cache_implementation is None:
            grow_in_place(made)

    def _select_before_drafts(self, inputs: Tensor | None, kwargs: dict[str, Any]) -> None:
        """Encode images and select local tokens by the prompt alone.

        The first step of prompt lookup appends draft tokens to `input_ids`, which the selector must not see.
        """
        input_ids = kwargs.get("input_ids") if inputs is None else inputs
        if input_ids is None or kwargs.get("kept_local_tokens") is not None:
            return
        with torch.no_grad():
            vision_tokens = kwargs.get("vision_tokens")
            if vision_tokens is None and kwargs.get("pixel_values") is not None:
                vision_tokens = self.model.encode_images(kwargs.pop("pixel_values"), kwargs.pop("image_grids"))
            if not vision_tokens:
                return
            selection = self.model.select(
                vision_tokens,
                input_ids,
                attention_mask=kwargs.get("attention_mask"),
                question_mask=kwargs.pop("question_mask", None),
            )
        kwargs["vision_tokens"] = vision_tokens
        if selection is not None:
            kept = zip(selection.kept, vision_tokens, strict=True)
            kwargs["kept_local_tokens"] = [mask[: tokens.num_local_tokens] for mask, tokens in kept]

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        is_first_iteration: bool | None = False,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Pass images to the first step only, or to every step if there is no cache.

        A filled cache may come with the first step. Then `input_ids` are one of these:
            - the tokens that follow, with or without images, and an `attention_mask` that covers the cached ones too;
            - a whole conversation that starts with the tokens of the cache;
            - a whole prompt of which the cache holds the part before its local tokens. The model drops that part
              itself, since its length is known only after merging.

        Raises:
            InputError: `input_ids` are whole and do not start with the tokens of the cache.
        """
        images = {name: kwargs.pop(name, None) for name in _IMAGE_INPUTS}
        if inputs_embeds is not None:
            # Rows of embeddings are not merged, so transformers counts their tokens rightly.
            inputs = super().prepare_inputs_for_generation(
                input_ids, is_first_iteration=is_first_iteration, inputs_embeds=inputs_embeds, **kwargs
            )
            return {**inputs, **images} if is_first_iteration else inputs
        cache = kwargs.get(CACHE)
        filled = cache is not None and cache.get_seq_length() > 0
        record = record_of(cache) if filled else None
        if not filled:
            inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
            if is_first_iteration or not kwargs.get("use_cache", True):
                # Merging needs the plain mask and counts positions itself. The next token follows the last column, so
                # all rows are padded on the left, also those that were padded on the right or became unequally long.
                mask = kwargs.get("attention_mask")
                inputs.update(images, attention_mask=mask, position_ids=None, padding_side="left")
            return inputs
        if not is_first_iteration:
            if record is not None:
                num_new = kwargs.get("next_sequence_length") or 1
                _put_behind(record, record.attention_mask.new_ones(input_ids.shape[0], num_new), kwargs)
            return super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        mask = kwargs.get("attention_mask")
        # `generate` sets it after comparing the lengths of ids and mask. It may have dropped a mask of ones since.
        whole = kwargs.get("next_sequence_length") is not None
        if record is not None:
            if whole and not self._ends_within_an_image(record, input_ids):
                images = self._images_behind(record, input_ids, images)
                input_ids, whole = input_ids[:, record.num_source :], False
                mask = None if mask is None else mask[:, -input_ids.shape[1] :]
                kwargs["next_sequence_length"] = None
            if not whole:
                rows, num_new = input_ids.shape
                cached_mask, new_mask = record.split_mask(mask, num_new, rows)
                mask = torch.cat([cached_mask, new_mask], dim=1)
                _put_behind(record, new_mask, kwargs)
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=True, **kwargs)
        if any(value is not None for value in images.values()):
            inputs.update(images, attention_mask=mask, padding_side="left")
            if record is not None and not whole:
                inputs["position_ids"] = None
            elif kwargs.get("next_sequence_length") is not None:
                mask = torch.ones_like(input_ids) if mask is None else mask
                inputs.update(input_ids=input_ids, attention_mask=mask, position_ids=None)
        return inputs

    def _ends_within_an_image(self, record: CachedRows, input_ids: Tensor) -> bool:
        """Whether the cache ends between the tokens of an image, so that the rest of the image has to be merged.

        Raises:
            InputError: The rows do not start with the tokens of the cache, or no token follows them.
        """
        count = record.num_source
        if not record.begins(input_ids) or input_ids.shape[1] == count:
            raise InputError(
                f"the cache stands for {count} tokens, and the {input_ids.shape[1]} of input_ids do not begin with "
                "them and go on: pass the whole conversation, or only the tokens that follow, with an attention_mask "
                "that covers the cached ones too"
            )
        run = (record.input_ids == self.config.image_token_id).flip(1).long().cumprod(dim=1).sum(dim=1)
        follows = input_ids[:, count] == self.config.image_token_id
        layout = self.config.token_layout
        # A cache can end after the global part of an image. A longer run of placeholders is a whole image.
        partial = (run > 0) & (run <= layout.num_global_tokens + layout.num_separators)
        return bool((partial & follows).any())

    def _images_behind(self, record: CachedRows, input_ids: Tensor, images: dict[str, Any]) -> dict[str, Any]:
        """Keep the images whose placeholders follow the cached tokens.

        Args:
            record: Record of the cache.
            input_ids: [B, S] the whole conversation.
            images: The images of the whole conversation, or only those that follow.
        """
        found = dict(images)
        if images["question_mask"] is not None:
            found["question_mask"] = images["question_mask"][:, record.num_source :]
        placeholders = input_ids == self.config.image_token_id
        num_behind = int(placeholders[:, record.num_source :].sum())
        if not num_behind:
            return dict.fromkeys(images)
        grids = _grids_of(images)
        counts = torch.tensor([self.config.token_layout.num_image_tokens(*grid) for grid in grids])
        if int(counts.sum()) == num_behind:
            return found
        counts = counts.to(input_ids.device)
        image_rows(placeholders, counts)
        first_columns = placeholders.nonzero()[:, 1][counts.cumsum(0) - counts]
        chosen = (first_columns >= record.num_source).nonzero()[:, 0].tolist()
        for name in ("vision_tokens", "kept_local_tokens"):
            if images[name] is not None:
                found[name] = [images[name][index] for index in chosen]
        if images["pixel_values"] is not None:
            views = images["pixel_values"].split([1 + rows * cols for rows, cols in grids])
            found["pixel_values"] = torch.cat([views[index] for index in chosen])
        if images["image_grids"] is not None:
            found["image_grids"] = images["image_grids"][chosen]
        return found

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        if outputs.get("vision_tokens") is not None and not model_kwargs.get("use_cache", True):
            # Without a cache every step merges again. It must not encode again, nor show the answer to the selector.
            model_kwargs["vision_tokens"] = outputs["vision_tokens"]
            model_kwargs["kept_local_tokens"] = outputs.get("kept_local_tokens")
            model_kwargs.update(pixel_values=None, question_mask=None)
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, **kwargs)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        images = {name: model_kwargs.pop(name, None) for name in _IMAGE_INPUTS if name != "question_mask"}
        if expand_size > 1 and input_ids is not None:
            images = self._expand_images(expand_size, input_ids, images)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return input_ids, {**model_kwargs, **{name: value for name, value in images.items() if value is not None}}

    def _expand_images(self, expand_size: int, input_ids: Tensor, images: dict[str, Any]) -> dict[str, Any]:
        """Encode images once, then repeat those of every row as often as the row is repeated."""
        vision_tokens = images["vision_tokens"]
        if vision_tokens is None and images["pixel_values"] is not None:
            vision_tokens = self.model.encode_images(images["pixel_values"], images["image_grids"])
        if not vision_tokens:
            return images
        layout = self.config.token_layout
        counts = torch.tensor([layout.num_image_tokens(*t.grid) for t in vision_tokens], device=input_ids.device)
        rows = image_rows(input_ids == self.config.image_token_id, counts).tolist()
        order = [
            image
            for row in range(input_ids.shape[0])
            for _ in range(expand_size)
            for image, image_row in enumerate(rows)
            if image_row == row
        ]
        kept = images["kept_local_tokens"]
        return {
            "vision_tokens": [vision_tokens[image] for image in order],
            "kept_local_tokens": None if kept is None else [kept[image] for image in order],
        }


def _put_behind(record: CachedRows, new_mask: Tensor, kwargs: dict[str, Any]) -> None:
    """Set mask and positions of new tokens [B, n] that follow the cached ones."""
    kwargs["attention_mask"] = torch.cat([record.attention_mask, new_mask], dim=1)
    kwargs["position_ids"] = record.next_positions(new_mask)


def _grids_of(images: dict[str, Any]) -> Sequence[tuple[int, int]]:
    if images["vision_tokens"] is not None:
        return [tokens.grid for tokens in images["vision_tokens"]]
    if images["image_grids"] is None:
        raise InputError("input_ids hold image placeholders behind the cached tokens, and no image came with them")
    return [(int(rows), int(cols)) for rows, cols in images["image_grids"]]


def _views_as_rows(kwargs: dict[str, Any], view_size: int) -> dict[str, Any]:
    """Take image inputs with one row per image out of the arguments, and return them with one row per view."""
    token_types, sizes = kwargs.pop("token_type_ids", None), kwargs.pop("image_sizes", None)
    found = {} if token_types is None else {"question_mask": (token_types == QUESTION).long()}
    pixel_values, grids = views_as_rows(kwargs.get("pixel_values"), kwargs.get("image_grids"), sizes, view_size)
    if pixel_values is not None:
        found |= {"pixel_values": pixel_values, "image_grids": grids}
    return found
