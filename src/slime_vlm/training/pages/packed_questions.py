"""Rows with several questions about one image, each of which attends to the image but not to the other questions.

Deviation: not in the paper, which trains on the turns of one conversation.

An image is by far the longest part of a row. Sharing it costs a fraction of one row per question, and gives the same
answers wherever the questions attend to the same image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.token_merging import fill_placeholders, kept_columns

if TYPE_CHECKING:
    from slime_vlm.pages import Question

HEAD = 2
"""Tokens before the image: the beginning of the text and the user's marker."""


def pack_questions(
    tokenizer: Any, questions: Sequence[Question], character_tokens: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Encode the text of a row without its image tokens.

    Args:
        tokenizer: The tokenizer of rendered pages.
        questions: The questions of the row.
        character_tokens: For every run of the page, the index of the local token that holds each of its characters.

    Returns:
        `input_ids`; `labels`, -100 except on answers; `question_of`, 1 + the index of a token's question, 0 for the
        head; `question_mask`, 1 on the user's text; `text_positions`, positions counted within the head or the
        question, without the image; `answer_tokens`, 1 + the index of the local token that holds an answer token, 0 for
        none. All [S].
    """
    special = tokenizer.convert_tokens_to_ids

    ids = [[special("<bos>"), special("<user>")]]
    answer_starts, text_ends, read_at = [HEAD], [0], [np.zeros(HEAD, np.int64)]
    for question in questions:
        asked = tokenizer(question.text, add_special_tokens=False).input_ids
        answer = tokenizer(question.answer, add_special_tokens=False, return_offsets_mapping=True)
        ids.append([*asked, special("<assistant>"), *answer.input_ids, special("<eos>")])
        text_ends.append(len(asked))
        answer_starts.append(len(asked) + 1)
        read_at.append(np.zeros(len(ids[-1]), np.int64))
        for run in question.value_runs:
            # The last character also tells where the answer ends.
            starts = [start for start, _ in answer.offset_mapping] + [len(question.answer) - 1]
            read_at[-1][len(asked) + 1 :] = 1 + character_tokens[run][starts]
    text_positions = [np.arange(len(part)) for part in ids]
    answered = np.concatenate([index >= start for index, start in zip(text_positions, answer_starts, strict=True)])
    flat = np.concatenate(ids)
    return {
        "input_ids": flat,
        "labels": np.where(answered, flat, IGNORED_LABEL),
        "question_of": np.repeat(np.arange(len(ids)), [len(part) for part in ids]),
        "question_mask": np.concatenate([index < end for index, end in zip(text_positions, text_ends, strict=True)]),
        "text_positions": np.concatenate(text_positions),
        "answer_tokens": np.concatenate(read_at),
    }


def pad_rows(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Stack rows with the same keys. Pad every dimension at its end, labels with -100 and all else with 0."""
    batch = {}
    for key in rows[0]:
        size = [max(row[key].shape[d] for row in rows) for d in range(rows[0][key].ndim)]
        stacked = np.full((len(rows), *size), IGNORED_LABEL if key == "labels" else 0, rows[0][key].dtype)
        for padded, row in zip(stacked, rows, strict=True):
            padded[tuple(slice(0, n) for n in row[key].shape)] = row[key]
        batch[key] = torch.from_numpy(stacked)
    return batch


@dataclass
class PackedImage:
    """The image of a row after selection.

    Attributes:
        tokens: [n, D] kept tokens.
        indices: [n] index of each among all tokens of the image, ascending.
        length: Number of all tokens of the image, local ones at its end.
        num_local: Number of its local tokens.
        seen: [n, Q] bool, whether a question attends to a token.
    """

    tokens: Tensor
    indices: Tensor
    length: int
    num_local: int
    seen: Tensor


def merge_packed(text: Tensor, batch: dict[str, Tensor], images: Sequence[PackedImage]) -> dict[str, Tensor]:
    """Put the images into their rows. Every token keeps the position that it has when nothing is dropped.

    Args:
        text: [B, S, D] embeddings of `input_ids`.
        batch: Output of `pack_questions`, padded by `pad_rows`.
        images: One per row.

    Returns:
        `inputs_embeds` [B, S', D], `attention_mask` [B, 1, S', S'] (additive), `position_ids`, `labels`, `is_image`,
        `question_of` (see `pack_questions`) and `answer_columns` (column of the image token where an answer's token is
        read, -1 for none) [B, S'].
    """
    rows = [_whole_row(batch, row, image) for row, image in enumerate(images)]
    whole = {key: pad_sequence([row[key] for row in rows], batch_first=True) for key in rows[0]}
    columns = kept_columns(whole["kept"], "right")
    is_image = columns.gather(whole["is_image"], False)
    owner = columns.gather(whole["question_of"], 0)

    embeds = text.gather(1, columns.gather(whole["text_index"], 0)[..., None].expand(-1, -1, text.shape[-1]))
    embeds = embeds.masked_fill((is_image | ~columns.mask)[..., None], 0.0)
    embeds = fill_placeholders(embeds, is_image, torch.cat([image.tokens for image in images]))

    # The head is seen by all, the text of a question by itself, and image tokens by the questions that kept them.
    questions = torch.arange(1 + images[0].seen.shape[1], device=text.device)
    seen_by = (owner[..., None] == 0) | (owner[..., None] == questions)
    seen_by[is_image] = torch.cat([F.pad(image.seen, (1, 0), value=True) for image in images])
    seen = seen_by.transpose(1, 2).gather(1, owner[..., None].expand(-1, -1, owner.shape[1]))
    seen = (seen & columns.mask[..., None] & columns.mask[:, None]).tril()
    mask = text.new_full(seen.shape, torch.finfo(text.dtype).min).masked_fill(seen, 0.0)

    # A column moves to the left by the columns dropped before it.
    kept_before = whole["kept"].long().cumsum(1) - whole["kept"].long()
    read_at = whole["read_at"]
    answer_columns = kept_before.gather(1, read_at.clamp(min=0)).masked_fill(read_at < 0, -1)
    return {
        "inputs_embeds": embeds,
        "attention_mask": mask[:, None],
        "position_ids": columns.gather(whole["position_ids"], 0),
        "labels": columns.gather(whole["labels"], IGNORED_LABEL),
        "is_image": is_image,
        "question_of": owner,
        "answer_columns": columns.gather(answer_columns, -1),
    }


def _whole_row(batch: dict[str, Tensor], row: int, image: PackedImage) -> dict[str, Tensor]:
    """Lay out one row before any token is dropped: the head, all tokens of the image, the questions.

    Returns:
        `kept`, `is_image`, `question_of`, `position_ids` and `labels`; `text_index`, index of a token in the text;
        `read_at`, column of the image token where an answer's token is read, -1 for none. All [S].
    """
    question_of = batch["question_of"][row]
    length = HEAD + int((question_of > 0).sum())
    question_of = question_of[:length]
    nothing = question_of.new_zeros(image.length)

    def around(text: Tensor, image_values: Tensor) -> Tensor:
        return torch.cat([text[:HEAD], image_values, text[HEAD:]])

    positions = batch["text_positions"][row, :length] + (question_of > 0) * (HEAD + image.length)
    token = batch["answer_tokens"][row, :length]
    nowhere = (token == 0) | (image.num_local == 0)
    read_at = (HEAD + image.length - image.num_local + token - 1).masked_fill(nowhere, -1)
    everything = torch.ones_like(question_of, dtype=torch.bool)
    return {
        "kept": around(everything, nothing.bool().index_fill(0, image.indices, True)),
        "is_image": around(~everything, nothing == 0),
        "question_of": around(question_of, nothing),
        "position_ids": around(positions, HEAD + torch.arange(image.length, device=nothing.device)),
        "labels": around(batch["labels"][row, :length], nothing + IGNORED_LABEL),
        "text_index": around(torch.arange(length, device=nothing.device), nothing),
        "read_at": around(read_at, nothing - 1),
    }
