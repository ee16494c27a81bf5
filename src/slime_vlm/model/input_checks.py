"""Checks of the inputs of `SlimeModel.forward` by themselves and against each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slime_vlm.errors import InputError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.labels import IGNORED_LABEL

_ID_TYPES = (torch.int64, torch.int32)
"""What an embedding table takes."""


def is_row_mask(attention_mask: Tensor | None) -> bool:
    """Whether a mask is one of tokens [B, S], not one of pairs [B, 1, S, S]."""
    return attention_mask is None or attention_mask.ndim == 2


def check_tensors(**inputs: Any) -> None:
    """Check that inputs are tensors or None.

    Raises:
        InputError: One is something else, such as a list or an array of numpy. It is named.
    """
    for name, value in inputs.items():
        if value is not None and not isinstance(value, Tensor):
            raise InputError(
                f"{name} is of type {type(value).__name__}, expected a torch.Tensor: call the processor with "
                'return_tensors="pt", or convert it with torch.as_tensor'
            )


def check_inputs(
    config: SlimeConfig,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    *,
    num_cached: int,
    labels: Tensor | None = None,
    pixel_values: Tensor | None = None,
    image_grids: Tensor | None = None,
    has_images: bool = False,
) -> None:
    """Check ids, embeddings, mask, labels and images against each other.

    Values are looked at where images are merged or several tokens come at once. A step of generation has one token, and
    looking at it would cost a synchronisation with the GPU.

    Args:
        config: Config of the model.
        input_ids: [B, S].
        inputs_embeds: [B, S, D] instead of `input_ids`.
        attention_mask: [B, S], or [B, 1, S, S] for text alone.
        num_cached: Number of tokens in the cache.
        labels: [B, S].
        pixel_values: Views, or features of a frozen encoder.
        image_grids: Grid of every image.
        has_images: Whether images or their tokens came along.

    Raises:
        InputError: They contradict each other, or one of them is not what the model takes.
    """
    if has_images and input_ids is None:
        raise InputError("images came without input_ids, expected the ids that hold their placeholders")
    if (input_ids is None) == (inputs_embeds is None):
        raise InputError("expected either input_ids or inputs_embeds, got both or neither")
    rows = _check_rows(config, input_ids, inputs_embeds)
    has_several = has_images or not num_cached or rows.shape[1] > 1
    if attention_mask is not None and attention_mask.ndim == 2:
        if has_several:
            _check_mask(attention_mask, rows, num_cached)
    elif attention_mask is not None:
        shape = list(attention_mask.shape)
        if has_images or (input_ids is not None and _holds(input_ids, config.image_token_id)):
            raise InputError(
                f"attention_mask has shape {shape}, expected [rows, tokens] with images: merging shortens the rows, "
                "and a mask of pairs cannot be shortened with them"
            )
        if len(shape) != 4:
            raise InputError(f"attention_mask has shape {shape}, expected [rows, tokens], or pairs [rows, 1, n, n]")
    if input_ids is None:
        return
    if has_several:
        _check_vocabulary("input_ids", input_ids, config)
    if labels is not None:
        _check_labels(labels, input_ids, config)
    if pixel_values is not None:
        check_pixels(pixel_values, image_grids, config)
    # `generate` never makes a token of a step the placeholder.
    if num_cached and not has_images and input_ids.shape[1] > 1 and _holds(input_ids, config.image_token_id):
        raise InputError(
            "input_ids hold image placeholders, and no image came with them: pass only the tokens that follow the "
            "cached ones, or the images of these placeholders"
        )


def _check_rows(config: SlimeConfig, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """Check type and shape of ids or embeddings, and return the one that is there."""
    if input_ids is not None:
        if input_ids.ndim != 2 or not input_ids.numel():
            raise InputError(f"input_ids has shape {list(input_ids.shape)}, expected [rows, tokens], neither of them 0")
        if input_ids.dtype not in _ID_TYPES:
            raise InputError(f"input_ids are of type {input_ids.dtype}, expected token ids of type torch.int64")
        return input_ids
    assert inputs_embeds is not None
    width = config.text_config.hidden_size
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[2] != width or not inputs_embeds.numel():
        raise InputError(f"inputs_embeds has shape {list(inputs_embeds.shape)}, expected [rows, tokens, {width}]")
    return inputs_embeds


def _check_mask(attention_mask: Tensor, rows: Tensor, num_cached: int) -> None:
    """Check a mask [B, S] of rows [B, n, ...]. A mask that covers cached tokens has S > n."""
    count, length = rows.shape[:2]
    if attention_mask.shape[0] != count or (not num_cached and attention_mask.shape[1] != length):
        raise InputError(
            f"attention_mask has shape {list(attention_mask.shape)}, expected [{count}, {length}] as the rows have: "
            "pass the processor's"
        )
    # A mask to be added to scores has 0 on real tokens, and larger values would scale embeddings.
    if bool(((attention_mask != 0) & (attention_mask != 1)).any()):
        raise InputError("attention_mask holds other values than 0 and 1, expected 1 on real tokens and 0 in padding")
    empty = (attention_mask == 0).all(dim=1)
    if bool(empty.any()):
        raise InputError(
            f"attention_mask is 0 on every token of row {int(empty.nonzero()[0])}, expected 1 on real tokens: leave an "
            "empty row out"
        )


def _check_vocabulary(name: str, ids: Tensor, config: SlimeConfig) -> None:
    size = config.text_config.vocab_size
    unknown = ((ids < 0) | (ids >= size)) & (ids != config.image_token_id)
    if bool(unknown.any()):
        raise InputError(
            f"{name} hold {int(ids[unknown][0])}, expected ids from 0 to {size - 1} (the vocabulary) or "
            f"{config.image_token_id} (the image placeholder): use the tokenizer of this model"
        )


def _check_labels(labels: Tensor, input_ids: Tensor, config: SlimeConfig) -> None:
    if labels.shape != input_ids.shape:
        raise InputError(
            f"labels have shape {list(labels.shape)}, expected that of input_ids, {list(input_ids.shape)}: pass -100 "
            "where nothing is to be learnt"
        )
    if labels.dtype not in _ID_TYPES:
        raise InputError(f"labels are of type {labels.dtype}, expected token ids of type torch.int64")
    _check_vocabulary("labels", labels.masked_fill(labels == IGNORED_LABEL, 0), config)


def check_pixels(pixel_values: Tensor, image_grids: Tensor | None, config: SlimeConfig) -> None:
    """Check type and shape of views, or of features of a frozen encoder, and of their grids.

    Raises:
        InputError: They are not those that the processor makes.
    """
    check_tensors(pixel_values=pixel_values, image_grids=image_grids)
    if not pixel_values.is_floating_point():
        # The encoder would take grey levels of 0 to 255 for normalised values, and answer wrongly.
        raise InputError(
            f"pixel_values are of type {pixel_values.dtype}, expected normalised floating point numbers: pass the "
            "processor's"
        )
    shape = list(pixel_values.shape)
    is_views = pixel_values.ndim >= 4 and shape[-3] == getattr(config.vision_config, "num_channels", 3)
    is_features = pixel_values.ndim == 3 and shape[-1] == config.vision_width
    if not (is_views or is_features):
        raise InputError(
            f"pixel_values has shape {shape}, expected views [views, 3, height, width], or features [views, patches, "
            f"{config.vision_width}] of the encoder: pass the processor's"
        )
    if image_grids is not None and (image_grids.ndim < 2 or image_grids.shape[-1] != 2):
        raise InputError(
            f"image_grids has shape {list(image_grids.shape)}, expected [images, 2] with (rows, columns): pass the "
            "processor's"
        )


def _holds(input_ids: Tensor, token_id: int) -> bool:
    return bool((input_ids == token_id).any())
