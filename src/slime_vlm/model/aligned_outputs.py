"""Outputs that line up with `input_ids`, for code that compares the two (`align_outputs`).

Deviation: not in the paper. Merging shortens rows, so outputs are shorter than inputs. Trainer's `compute_metrics` and
TRL compare logits with labels and ids position by position.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.outputs import SlimeModelOutput


def trainer_compares(num_items_in_batch: Any, labels: Tensor | None, training: bool) -> bool:
    """Return whether Trainer will compare the logits of this call with the labels of `input_ids`.

    Trainer passes `num_items_in_batch` with every batch that has labels (transformers 5.19 to 5.24). It compares where
    it evaluates (`compute_metrics`), and where it keeps the labels to itself (`label_smoothing_factor`,
    `compute_loss_func`). Otherwise it takes the loss of the model, and the shorter merged rows save logits.
    """
    return num_items_in_batch is not None and (labels is None or not training)


def align_with_inputs(
    outputs: SlimeModelOutput,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor | None,
    image_token_id: int,
    has_limit: bool = False,
) -> None:
    """Give the outputs of merged rows the columns of `input_ids`.

    A dropped token gets those of the last kept token before it, which predicts the token that follows. Attention
    weights, if requested, stay those of the merged rows. Text that `max_sequence_length` cut has no outputs of its own:
    its labels are ignored in the loss, and a warning counts it.

    Args:
        outputs: Outputs of merged rows, changed in place.
        input_ids: [B, S'] the rows before merging.
        attention_mask: [B, S'] their mask.
        labels: [B, S'] their labels.
        image_token_id: Id of the image placeholder.
        has_limit: Whether the config has a `max_sequence_length`.
    """
    assert outputs.token_index is not None
    assert outputs.last_hidden_state is not None
    placeholders = input_ids == image_token_id
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    columns = source_columns(outputs.token_index, input_ids.shape[1])
    cut = (mask != 0) & ~placeholders & ~is_kept(outputs.token_index, input_ids.shape[1])
    # Only a limit cuts text. Without one, the device need not be asked.
    if has_limit and cut.any():
        warnings.warn(
            f"max_sequence_length cut {int(cut.sum())} tokens of text, whose logits repeat those of the last kept "
            "token; leave them out of metrics, or set max_sequence_length to null",
            stacklevel=2,
        )

    def aligned(hidden: Tensor) -> Tensor:
        return hidden.gather(1, columns.to(hidden.device)[..., None].expand(-1, -1, hidden.shape[-1]))

    outputs.last_hidden_state = aligned(outputs.last_hidden_state)
    if outputs.hidden_states is not None:
        outputs.hidden_states = tuple(aligned(states) for states in outputs.hidden_states)
    if outputs.pointing is not None and outputs.follows is not None:
        outputs.pointing, outputs.follows = aligned(outputs.pointing), outputs.follows.gather(1, columns)
    if outputs.position_ids is not None:
        outputs.position_ids = outputs.position_ids.expand_as(outputs.token_index).gather(1, columns)
    outputs.token_index = outputs.token_index.gather(1, columns)
    outputs.attention_mask = mask
    outputs.labels = None if labels is None else labels.masked_fill(placeholders | cut, IGNORED_LABEL)


def is_kept(token_index: Tensor, length: int) -> Tensor:
    """Return for every column of rows [B, S'] before merging whether its token is in the merged rows, bool.

    Args:
        token_index: [B, S] index of every merged token before merging, -1 in padding.
        length: Length S' before merging.
    """
    # Padding is written to a column of its own, which is left out.
    found = torch.zeros(len(token_index), length + 1, dtype=torch.bool, device=token_index.device)
    return found.scatter_(1, token_index.where(token_index >= 0, length), True)[:, :length]


def source_columns(token_index: Tensor, length: int) -> Tensor:
    """Return for every column of rows [B, S'] before merging the column of the merged rows [B, S] that stands for it.

    That of a dropped token is the last kept one before it, which predicts the token that follows. Columns before the
    first kept token are padding, and get column 0.

    Args:
        token_index: [B, S] index of every merged token before merging, -1 in padding.
        length: Length S' before merging.
    """
    columns = torch.arange(token_index.shape[1], device=token_index.device).expand_as(token_index)
    real = token_index >= 0
    found = columns.new_zeros(len(token_index), length)
    found.scatter_reduce_(1, token_index.clamp(min=0), columns.masked_fill(~real, 0), reduce="amax")
    return found.cummax(dim=1).values
