"""Batches of pages in cells with their questions, one token a word of the question and a character of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slime_vlm.model.cell_runs import MOST
from slime_vlm.model.cell_words import Words, character_classes, find_words
from slime_vlm.model.copy_output import following_places
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.training.pages.character_cells import CHARACTERS, NUM_CHARACTER_IDS, character_ids
from slime_vlm.training.pages.packed_questions import HEAD, pad_rows
from slime_vlm.training.pages.words.cells import Asked, PageCells

BEGIN, USER, ASSISTANT, END, NOT_THERE = range(NUM_CHARACTER_IDS, NUM_CHARACTER_IDS + 5)
"""Ids of the tokens that are no characters. `NOT_THERE` is the answer to what a page does not state."""

NUM_TOKENS = NUM_CHARACTER_IDS + 5

CLASSES = character_classes(CHARACTERS)


@dataclass
class WordBatch:
    """Pages with their questions.

    Attributes:
        ids: int64 [B, R, C, S] character ids, 0 in padding.
        sizes: (rows, columns) of every page.
        kept: bool [B, R, C] cells that the language model reads.
        rows: Padded rows of text, each the head and its questions (`packed_questions.pack_questions`), with
            `word_at` [B, S], 1 + index of a question's word, `step` [B, S], 1 + number of the next character of the
            answer, `follows` [B, S], character that follows this one of the answer on the page, and `slots` [B, S],
            1 + place of this one in its cell.
        question_words: Words of all questions.
        words_of: int64 [B, Q, W] 1 + index of the words of every question, 0 in padding.
        asked: int64 [B, Q] 1 for a question that is there.
        key: bool [B, Q, R * C] cells of what is asked.
        value: bool [B, Q, R * C] cells of the answer.
        begins: int64 [B, Q] cell in which the answer begins, R * C for an absent one, -1 where it is not printed.
        ends: int64 [B, Q] cell in which it ends, -1 where it is absent or not printed.
        fact_words: Words of all stated keys.
        fact_of: int64 [F] fact of each of these words.
        told: int64 [T, 3] page, cell and fact of every cell of a fact.
    """

    ids: Tensor
    sizes: list[tuple[int, int]]
    kept: Tensor
    rows: dict[str, Tensor]
    question_words: Words
    words_of: Tensor
    asked: Tensor
    key: Tensor
    value: Tensor
    begins: Tensor
    ends: Tensor
    fact_words: Words
    fact_of: Tensor
    told: Tensor


def words_of_texts(texts: Sequence[str], buckets: int) -> tuple[Words, Tensor]:
    """Find the words of some texts, and the text of every word, int64 [W]."""
    ids = torch.from_numpy(np.concatenate([character_ids(text) for text in texts]) if texts else np.zeros(0, np.int64))
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.long)
    text_of = torch.repeat_interleave(torch.arange(len(texts)), lengths)
    begins = torch.zeros_like(ids, dtype=torch.bool)
    begins[1:] = text_of[1:] != text_of[:-1]
    words = find_words(CLASSES[ids], begins, buckets)
    inside = words.word_of >= 0
    owner = torch.zeros(len(words), dtype=torch.long).scatter_(0, words.word_of[inside], text_of[inside])
    return words, owner


def _row(asked: Sequence[Asked], words: Sequence[np.ndarray], following: np.ndarray) -> dict[str, np.ndarray]:
    """Lay out the text of a page: the head, and for every question its words, the answer and its end.

    Args:
        asked: The questions.
        words: Indices of the words of each.
        following: int64 [R * C, S] character after each one on the page, 0 for none.
    """
    ids, labels, question_of = [BEGIN, USER], [IGNORED_LABEL] * HEAD, [0] * HEAD
    word_at, step, positions, read_at = [0] * HEAD, [0] * HEAD, list(range(HEAD)), [0] * HEAD
    follows, slots = [0] * HEAD, [0] * HEAD
    for number, (one, its_words) in enumerate(zip(asked, words, strict=True), start=1):
        answer = [NOT_THERE] if one.absent else one.answer.tolist()
        cells, places = ([-1], [-1]) if one.absent else (one.cells.tolist(), one.slots.tolist())
        count = len(its_words)
        part = [0] * count + [ASSISTANT, *answer, END]
        ids += part
        labels += [IGNORED_LABEL] * (count + 1) + [*answer, END]
        question_of += [number] * len(part)
        word_at += [*(1 + its_words).tolist(), *([0] * (len(answer) + 2))]
        step += [0] * count + [1 + k for k in range(len(answer) + 1)] + [0]
        positions += list(range(len(part)))
        read_at += [0] * (count + 1) + [1 + cell for cell in (*cells, cells[-1])]
        after = [int(following[at]) if min(at) >= 0 else 0 for at in zip(cells, places, strict=True)]
        follows += [0] * (count + 1) + after + [0]
        slots += [0] * (count + 1) + [1 + place for place in places] + [0]
    return {
        "input_ids": np.array(ids),
        "labels": np.array(labels),
        "question_of": np.array(question_of),
        "text_positions": np.array(positions),
        "answer_tokens": np.array(read_at),
        "word_at": np.array(word_at),
        "step": np.minimum(np.array(step), 1 + MOST),
        "follows": np.array(follows),
        "slots": np.array(slots),
    }


def _mask(cells: Sequence[np.ndarray], count: int) -> np.ndarray:
    mask = np.zeros((len(cells), count), bool)
    for row, indices in zip(mask, cells, strict=True):
        row[indices[indices >= 0]] = True
    return mask


def make_batch(
    pages: Sequence[PageCells],
    buckets: int,
    keep: Sequence[float] | None = None,
    rng: np.random.Generator | None = None,
) -> WordBatch:
    """Put pages into a batch.

    Args:
        pages: Each with at least one question.
        buckets: See `cell_words.find_words`.
        keep: Share of every page's tokens that the language model reads beside those of the asked keys and values;
            None for all.
        rng: Draws those tokens.
    """
    rows, cols = (max(page.ids.shape[d] for page in pages) for d in (0, 1))
    most = max(len(page.asked) for page in pages)
    ids = np.zeros((len(pages), rows, cols, pages[0].ids.shape[2]), np.int64)
    kept = np.zeros((len(pages), rows, cols), bool)
    key, value = (np.zeros((len(pages), most, rows, cols), bool) for _ in range(2))
    questions = [one.question.text for page in pages for one in page.asked]
    question_words, text_of = words_of_texts(questions, buckets)
    words_by_text = [np.flatnonzero(text_of.numpy() == number) for number in range(len(questions))]
    fact_words, fact_of = words_of_texts([text for page in pages for text, _ in page.facts], buckets)
    begins, ends = (np.full((len(pages), most), -1, np.int64) for _ in range(2))
    texts, told, first_text, first_fact = [], [], 0, 0
    words_of = np.zeros((len(pages), most, max(map(len, words_by_text))), np.int64)
    asked = np.zeros((len(pages), most), np.int64)
    for k, page in enumerate(pages):
        high, wide = page.ids.shape[:2]
        ids[k, :high, :wide] = page.ids
        count = len(page.asked)
        asked[k, :count] = 1
        for number, one in enumerate(page.asked):
            if one.absent:
                begins[k, number] = rows * cols
            elif len(one.cells) and one.cells[0] >= 0:
                for known, cell in ((begins, one.cells[0]), (ends, one.cells[-1])):
                    known[k, number] = cell // wide * cols + cell % wide
        shown = page.shown
        pairs = zip(*((one.key, one.cells) for one in page.asked), strict=True)
        masks = [_mask(cells, high * wide) & shown for cells in pairs]
        for whole, mask in zip((key, value), masks, strict=True):
            whole[k, :count, :high, :wide] = mask.reshape(count, high, wide)
        read = shown.copy()
        if keep is not None and rng is not None:
            read &= (rng.random(len(read)) < keep[k]) | (masks[0] | masks[1]).any(axis=0)
        kept[k, :high, :wide] = read.reshape(high, wide)
        its_words = words_by_text[first_text : first_text + count]
        for number, words in enumerate(its_words):
            words_of[k, number, : len(words)] = 1 + words
        places = following_places(torch.from_numpy(page.ids)).numpy()
        following = np.where(places < 0, 0, page.ids.flatten()[places]).reshape(-1, page.ids.shape[2])
        texts.append(_row(page.asked, its_words, following))
        for number, (_, cells) in enumerate(page.facts):
            cells = cells[shown[cells]]
            # Counted in the raster of the batch.
            place = cells // wide * cols + cells % wide
            told.append(np.stack([np.full_like(place, k), place, np.full_like(place, first_fact + number)], 1))
        first_text += count
        first_fact += len(page.facts)
    flat = (len(pages), most, rows * cols)
    return WordBatch(
        ids=torch.from_numpy(ids),
        sizes=[(page.ids.shape[0], page.ids.shape[1]) for page in pages],
        kept=torch.from_numpy(kept),
        rows=pad_rows(texts),
        question_words=question_words,
        words_of=torch.from_numpy(words_of),
        asked=torch.from_numpy(asked),
        key=torch.from_numpy(key.reshape(flat)),
        value=torch.from_numpy(value.reshape(flat)),
        begins=torch.from_numpy(begins),
        ends=torch.from_numpy(ends),
        fact_words=fact_words,
        fact_of=fact_of,
        told=torch.from_numpy(np.concatenate(told) if told else np.zeros((0, 3), np.int64)),
    )
