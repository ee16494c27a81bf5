"""Many questions behind one image: rows in which every question stands as if it were the only one.

Deviation: not in the paper, which trains on the turns of one conversation.

An image is by far the longest part of a row. Questions that share it, see it, and do not see one another cost a
fraction of as many rows, and give the same answers wherever they see the same image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slime_vlm.model.labels import IGNORED_LABEL

if TYPE_CHECKING:
    from slime_vlm.pages import Question

HEAD = 2
"""Tokens before the image: the beginning of the text and the user's mark."""


def pack_questions(
    tokenizer: Any, questions: Sequence[Question], places: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Text of a row without its image tokens.

    Args:
        tokenizer: that of rendered pages.
        questions: asked one beside the other.
        places: for every run of the page, the place of the local token that holds each of its characters.

    Returns:
        `input_ids`; `labels`, -100 but on answers; `question_of`, 1 + the question a token belongs to, 0 for the head;
        `question_mask`, 1 on what the user asks; `text_places`, place after the head, without the image;
        `answer_places`, 1 + the place of the local token where an answer's token is read, 0 for none. All [S].
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
            # The end is read off the last character.
            starts = [start for start, _ in answer.offset_mapping] + [len(question.answer) - 1]
            read_at[-1][len(asked) + 1 :] = 1 + places[run][starts]
    text_places = [np.arange(len(part)) for part in ids]
    answered = np.concatenate([place >= start for place, start in zip(text_places, answer_starts, strict=True)])
    flat = np.concatenate(ids)
    return {
        "input_ids": flat,
        "labels": np.where(answered, flat, IGNORED_LABEL),
        "question_of": np.repeat(np.arange(len(ids)), [len(part) for part in ids]),
        "question_mask": np.concatenate([place < end for place, end in zip(text_places, text_ends, strict=True)]),
        "text_places": np.concatenate(text_places),
        "answer_places": np.concatenate(read_at),
    }


def pad_rows(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Stack rows of equal keys, padded at the end of every dimension: labels by -100, all else by 0."""
    batch = {}
    for key in rows[0]:
        size = [max(row[key].shape[d] for row in rows) for d in range(rows[0][key].ndim)]
        stacked = np.full((len(rows), *size), IGNORED_LABEL if key == "labels" else 0, rows[0][key].dtype)
        for place, row in zip(stacked, rows, strict=True):
            place[tuple(slice(0, n) for n in row[key].shape)] = row[key]
        batch[key] = torch.from_numpy(stacked)
    return batch


@dataclass
class PackedImage:
    """The image of a row after selection.

    Attributes:
        tokens: [n, D].
        places: [n], the place of each among all tokens of the image.
        length: number of all tokens of the image, local ones at its end.
        num_local: number of its local tokens.
        seen: bool [n, Q], whether a question sees a token.
    """

    tokens: Tensor
    places: Tensor
    length: int
    num_local: int
    seen: Tensor


def _around(text: Tensor, image: Tensor) -> Tensor:
    return torch.cat([text[:HEAD], image, text[HEAD:]])


def merge_packed(text: Tensor, batch: dict[str, Tensor], images: Sequence[PackedImage]) -> dict[str, Tensor]:
    """Put the images into their rows; every token keeps the place that it has when nothing is dropped.

    Args:
        text: [B, S, D] embeddings of `input_ids`.
        batch: what `pack_questions` gives, padded by `pad_rows`.
        images: one a row.

    Returns:
        `inputs_embeds` [B, S', D], `attention_mask` [B, 1, S', S'] (additive), `position_ids`, `labels`, `is_image`
        and `answer_columns` (column of the image token where an answer's token is read, -1 for none) [B, S'].
    """
    embeds, positions, labels, is_image, columns, masks = [], [], [], [], [], []
    for row, image in enumerate(images):
        question_of = batch["question_of"][row]
        length = HEAD + int((question_of > 0).sum())
        question_of, n = question_of[:length], len(image.tokens)

        embeds.append(_around(text[row, :length], image.tokens.to(text.dtype)))
        places = batch["text_places"][row, :length]
        places = places + (question_of > 0) * (HEAD + image.length)
        positions.append(_around(places, HEAD + image.places))
        labels.append(_around(batch["labels"][row, :length], places.new_full((n,), IGNORED_LABEL)))
        read_at = batch["answer_places"][row, :length]
        column = HEAD + torch.searchsorted(image.places, read_at - 1 + image.length - image.num_local)
        nowhere = (read_at == 0) | (image.num_local == 0)
        columns.append(_around(column.masked_fill(nowhere, -1), places.new_full((n,), -1)))
        is_image.append(_around(torch.zeros_like(question_of, dtype=torch.bool), question_of.new_ones(n).bool()))
        owner = _around(question_of, question_of.new_zeros(n))
        seen = (owner[None] == 0) | (owner[None] == owner[:, None])
        every = torch.cat([image.seen.new_ones(n, 1), image.seen], 1)
        seen[:, HEAD : HEAD + n] = every.T[owner]
        masks.append(seen.tril())
    size = max(map(len, embeds))
    mask = text.new_full((len(embeds), 1, size, size), torch.finfo(text.dtype).min)
    for place, seen in zip(mask, masks, strict=True):
        place[0, : len(seen), : len(seen)].masked_fill_(seen, 0.0)
    return {
        "inputs_embeds": pad_sequence(embeds, batch_first=True),
        "attention_mask": mask,
        "position_ids": pad_sequence(positions, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL),
        "is_image": pad_sequence(is_image, batch_first=True),
        "answer_columns": pad_sequence(columns, batch_first=True, padding_value=-1),
    }
