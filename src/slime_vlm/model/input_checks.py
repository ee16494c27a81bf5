"""Checks of the inputs of `SlimeModel.forward` against each other."""

from __future__ import annotations

from torch import Tensor

from slime_vlm.errors import InputError


def is_row_mask(attention_mask: Tensor | None) -> bool:
    """Whether a mask is one of tokens [B, S], not one of pairs [B, 1, S, S]."""
    return attention_mask is None or attention_mask.ndim == 2


def check_inputs(
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    *,
    image_token_id: int,
    has_images: bool,
    num_cached: int,
    labels: Tensor | None = None,
    pixel_values: Tensor | None = None,
) -> None:
    """Check ids, embeddings, mask, labels and images against each other.

    Args:
        input_ids: [B, S].
        inputs_embeds: [B, S, D] instead of `input_ids`.
        attention_mask: [B, S], or [B, 1, S, S] for text alone.
        image_token_id: Id of the image placeholder.
        has_images: Whether images or their tokens came along.
        num_cached: Number of tokens in the cache.
        labels: [B, S].
        pixel_values: Views, or features of a frozen encoder.

    Raises:
        InputError: They contradict each other.
    """
    if has_images and input_ids is None:
        raise InputError("images came without input_ids, expected the ids that hold their placeholders")
    if (input_ids is None) == (inputs_embeds is None):
        raise InputError("expected either input_ids or inputs_embeds, got both or neither")
    if input_ids is None:
        return
    if input_ids.ndim != 2:
        raise InputError(f"input_ids has shape {list(input_ids.shape)}, expected [rows, tokens]")
    if labels is not None and labels.shape != input_ids.shape:
        raise InputError(
            f"labels have shape {list(labels.shape)}, expected that of input_ids, {list(input_ids.shape)}: pass -100 "
            "where nothing is to be learnt"
        )
    if pixel_values is not None and not pixel_values.is_floating_point():
        # The encoder would take grey levels of 0 to 255 for normalised values, and answer wrongly.
        raise InputError(
            f"pixel_values are of type {pixel_values.dtype}, expected normalised floating point numbers: pass the "
            "processor's"
        )
    if not is_row_mask(attention_mask) and (has_images or _holds(input_ids, image_token_id)):
        assert attention_mask is not None
        raise InputError(
            f"attention_mask has shape {list(attention_mask.shape)}, expected [rows, tokens] with images: merging "
            "shortens the rows, and a mask of pairs cannot be shortened with them"
        )
    # A step of generation has one token, and `generate` never makes it a placeholder. Checking it would cost a
    # synchronisation with the GPU.
    if num_cached and not has_images and input_ids.shape[1] > 1 and _holds(input_ids, image_token_id):
        raise InputError(
            "input_ids hold image placeholders, and no image came with them: pass only the tokens that follow the "
            "cached ones, or the images of these placeholders"
        )


def _holds(input_ids: Tensor, token_id: int) -> bool:
    return bool((input_ids == token_id).any())
