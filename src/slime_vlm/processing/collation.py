"""Collate rows into a batch: match images to placeholders, and pad tokens to one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slime_vlm.errors import InputError
from slime_vlm.model.image_inputs import PROMPT, QUESTION
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.processing.tokenization import EncodedText

_PADDINGS = (True, False, "longest", "max_length", "do_not_pad")


def match_images(images: Any, per_row: Sequence[int], image_token: str) -> list[Any]:
    """Flatten images into one list, and check their number against the placeholders.

    Args:
        images: None, one image, a list of images, or a list of images per row.
        per_row: Number of placeholders of each row.
        image_token: Text of a placeholder, for messages.

    Raises:
        InputError: The numbers of images and placeholders differ, in total or in a row.
    """
    if images is None:
        images = []
    elif not isinstance(images, (list, tuple)):
        images = [images]
    if any(isinstance(entry, (list, tuple)) or entry is None for entry in images):
        nested = [list(row) if isinstance(row, (list, tuple)) else [] if row is None else [row] for row in images]
        for index, (row, expected) in enumerate(zip(nested, per_row, strict=False)):
            if len(row) != expected:
                raise InputError(
                    f"row {index} has {expected} {image_token} placeholder(s) and {len(row)} image(s), "
                    "expected as many of each"
                )
        if len(nested) != len(per_row):
            raise InputError(f"images come for {len(nested)} row(s), text for {len(per_row)}, expected as many of each")
        images = [image for row in nested for image in row]
    if len(images) != sum(per_row):
        raise InputError(
            f"the text has {sum(per_row)} {image_token} placeholder(s) and there are {len(images)} image(s), "
            "expected as many of each"
        )
    return list(images)


def padded_length(
    rows: Sequence[EncodedText], padding: bool | str, max_length: int | None, multiple_of: int | None = None
) -> int | None:
    """Return the length that rows are padded to, None for no padding.

    Raises:
        InputError: `padding` has an unknown value.
    """
    if padding not in _PADDINGS:
        raise InputError(f"padding is {padding!r}, expected True, False, 'longest' or 'max_length'")
    if padding in (False, "do_not_pad"):
        return None
    longest = max((len(row.input_ids) for row in rows), default=0)
    length = max(longest, max_length or 0) if padding == "max_length" else longest
    return length if not multiple_of else -(-length // multiple_of) * multiple_of


def pad_rows(
    rows: Sequence[EncodedText], length: int | None, side: str, pad_token_id: int, image_token_id: int
) -> dict[str, Any]:
    """Pad rows to one length on the left or right.

    Args:
        rows: Rows of a batch.
        length: Length to pad to. None does not pad.
        side: `left` or `right`.
        pad_token_id: Id of the padding token.
        image_token_id: Id of the image placeholder.

    Returns:
        `input_ids`, `attention_mask`, `question_mask`, `token_type_ids`, `labels` and `offset_mapping`, each a list
        per row.

    Raises:
        InputError: `side` has an unknown value.
    """
    if side not in ("left", "right"):
        raise InputError(f"padding_side is {side!r}, expected 'left' or 'right'")

    def pad(values: list[Any], fill: Any) -> list[Any]:
        missing = [fill] * (0 if length is None else length - len(values))
        return missing + values if side == "left" else values + missing

    return {
        "input_ids": [pad(row.input_ids, pad_token_id) for row in rows],
        "attention_mask": [pad([1] * len(row.input_ids), 0) for row in rows],
        "question_mask": [pad(row.question_mask, 0) for row in rows],
        "token_type_ids": [pad(_token_types(row, image_token_id), 0) for row in rows],
        "labels": [pad(row.labels, IGNORED_LABEL) for row in rows],
        "offset_mapping": [pad(row.offsets, (0, 0)) for row in rows],
    }


def _token_types(row: EncodedText, image_token_id: int) -> list[int]:
    """Return the type of every token: of a question, of the rest of the prompt, or 0 for the answer.

    A row without an image is 0 throughout. It may be a completion, which TRL puts behind a prompt with images, and
    without an image nothing is selected.
    """
    if image_token_id not in row.input_ids:
        return [0] * len(row.input_ids)
    asked = max((index for index, is_question in enumerate(row.question_mask) if is_question), default=-1)
    is_answered = any(label != IGNORED_LABEL for label in row.labels[asked + 1 :])
    return [
        QUESTION if is_question else 0 if is_answered and label != IGNORED_LABEL else PROMPT
        for is_question, label in zip(row.question_mask, row.labels, strict=True)
    ]
