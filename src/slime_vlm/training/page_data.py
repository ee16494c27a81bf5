"""Rendered pages as training samples: an endless, indexed stream, so that a resumed run sees the very next page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from slime_vlm.model.tiling import choose_grid
from slime_vlm.pages import PageSettings, make_page, render
from slime_vlm.training.page_labels import (
    UNKNOWN_WORD,
    SlotVocabulary,
    cell_labels,
    global_token_labels,
    tile_token_labels,
)

if TYPE_CHECKING:
    from slime_vlm.model.processing_slime import SlimeProcessor
    from slime_vlm.pages import Page
    from slime_vlm.training.recipe import OracleSettings

IGNORED = -100


class PageDataset(Dataset):
    """Pages by index: item i is the page of seed `first_seed + i`, laid out anew at each access; nothing is stored."""

    def __init__(self, settings: PageSettings, count: int, first_seed: int) -> None:
        """Args: settings of the renderer, number of pages, seed of the first."""
        self.settings, self.count, self.first_seed = settings, count, first_seed

    def __len__(self) -> int:
        """Number of pages."""
        return self.count

    def __getitem__(self, index: int) -> Page:
        """The page of this index."""
        return make_page(self.first_seed + index, self.settings)


def tile_order(raster: np.ndarray, side: int) -> np.ndarray:
    """Regroup a stitched raster [rows * side, cols * side, ...] tile by tile: [T, side * side, ...]."""
    rows, cols = raster.shape[0] // side, raster.shape[1] // side
    tiles = raster.reshape(rows, side, cols, side, *raster.shape[2:]).swapaxes(1, 2)
    return tiles.reshape(rows * cols, side * side, *raster.shape[2:])


@dataclass(frozen=True)
class PageShape:
    """What the labels of a page depend on in the model."""

    view_size: int
    max_tiles: int
    local_side: int
    patch_side: int


class ReadCollator:
    """Pages -> views with the labels of every token, for the `read` objective.

    Returns pixel_values [V, 3, H, W] (global view first, then tiles, page after page), `is_global` [V], `local_labels`
    [T, Q, K], `patch_labels` [V, N, K], `cell_labels` [T, 4 N].
    """

    # Smaller letters cannot be told apart by a person either.
    LEGIBLE = 13.0

    def __init__(self, processor: SlimeProcessor, shape: PageShape, vocabulary: SlotVocabulary) -> None:
        """Args: the processor that cuts views, the token geometry, the slots."""
        self.processor, self.shape, self.vocabulary = processor, shape, vocabulary

    def labels(self, page: Page) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Label one page: local tokens [T, Q, K], patches of all views [1 + T, N, K], cells of tiles [T, 4 N]."""
        shape, view = self.shape, {"view_size": self.shape.view_size}
        grid = choose_grid(page.height, page.width, shape.view_size, shape.max_tiles)
        local = tile_token_labels(page, grid, self.vocabulary, side=shape.local_side, **view).ids
        patches = tile_token_labels(page, grid, self.vocabulary, side=shape.patch_side, **view).ids
        squashed = global_token_labels(page, self.vocabulary, side=shape.patch_side, legible=self.LEGIBLE, **view).ids
        views = np.concatenate([tile_order(squashed, shape.patch_side), tile_order(patches, shape.patch_side)])
        cells = cell_labels(page, grid, self.vocabulary, side=2 * shape.patch_side, **view)
        return tile_order(local, shape.local_side), views, tile_order(cells, 2 * shape.patch_side)

    def __call__(self, pages: list[Page]) -> dict[str, torch.Tensor]:
        """Render and label a list of pages."""
        images = [Image.fromarray(render(page)) for page in pages]
        pixels = self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        local, patches, cells = zip(*(self.labels(page) for page in pages), strict=True)
        is_global = [i == 0 for views in patches for i in range(len(views))]
        return {
            "pixel_values": pixels,
            "is_global": torch.tensor(is_global),
            "local_labels": torch.from_numpy(np.concatenate(local)),
            "patch_labels": torch.from_numpy(np.concatenate(patches)),
            "cell_labels": torch.from_numpy(np.concatenate(cells)),
        }


class OracleCollator:
    """Pages -> token contents and packed questions, for the `oracle` objective; no pixels are rendered.

    A row is the beginning of a conversation, a placeholder for every local token that a selector left, then question,
    answer and so on. Tokens of the asked keys and values stay; of the others those that share a word with them half of
    the time, and a share of all.

    Returns `slot_ids` [B, L, K], `coordinates` [B, L, 2], `local_mask`, `kept` [B, L] and `relevant` [B, L, n] of
    the kept tokens and some others for the selector to tell apart; `input_ids`, `attention_mask`, `position_ids`,
    `labels` and `question_of` (1 + the question a token belongs to, 0 = none) [B, S]; rows are padded on the right.
    """

    # Tokens that are left out of the row but still shown to the selector's loss.
    REJECTED = 24

    def __init__(
        self,
        processor: SlimeProcessor,
        shape: PageShape,
        vocabulary: SlotVocabulary,
        settings: OracleSettings,
        seed: int,
    ) -> None:
        """Args: the processor, token geometry, slots, what is left in a row, the seed of the choices made here."""
        self.tokenizer: Any = processor.tokenizer
        self.shape, self.vocabulary, self.settings, self.seed = shape, vocabulary, settings, seed

    def __call__(self, pages: list[Page]) -> dict[str, torch.Tensor]:
        """Label and pack a list of pages."""
        asked = int(np.random.default_rng([self.seed, pages[0].seed]).choice(self.settings.questions))
        rows = [self._row(page, asked) for page in pages]
        batch = {}
        for key in rows[0]:
            size = [max(row[key].shape[d] for row in rows) for d in range(rows[0][key].ndim)]
            stacked = np.full((len(rows), *size), IGNORED if key == "labels" else 0, rows[0][key].dtype)
            for place, row in zip(stacked, rows, strict=True):
                place[tuple(slice(0, n) for n in row[key].shape)] = row[key]
            batch[key] = torch.from_numpy(stacked)
        return batch

    def _row(self, page: Page, asked: int) -> dict[str, np.ndarray]:
        shape = self.shape
        rng = np.random.default_rng([self.seed, page.seed])
        grid = choose_grid(page.height, page.width, shape.view_size, shape.max_tiles)
        labels = tile_token_labels(page, grid, self.vocabulary, side=shape.local_side, view_size=shape.view_size)
        run, cols = labels.run.reshape(-1), labels.run.shape[1]
        slot_ids = labels.ids.reshape(len(run), -1)
        questions = [page.questions[i] for i in rng.permutation(len(page.questions))[:asked]]
        asked_runs = [[*question.key_runs, *question.value_runs] for question in questions]
        relevant = np.stack([np.isin(run, runs) for runs in asked_runs], -1)
        kept = relevant.any(1) | self._distractors(rng, page, run, asked_runs)
        if rng.random() < self.settings.unknown:
            # An encoder of small reach does not see which key a value stands beside; the language model then has to.
            beside = np.array([bool(r.word_runs) for r in page.runs] + [False])[run]
            slot_ids[beside, -3:-1] = np.where(slot_ids[beside, -3:-1] > 0, UNKNOWN_WORD, 0)
        shown = kept.copy()
        shown[rng.permutation(np.flatnonzero(~kept))[: self.REJECTED]] = True
        place = np.flatnonzero(shown)

        special: Any = self.tokenizer.convert_tokens_to_ids
        # (ids, whether the model has to write them, 1 + question they ask)
        parts: list[tuple[list[int], bool, int]] = [([special("<bos>")], False, 0)]
        for q, question in enumerate(questions):
            images = [special("<image>")] * int(kept.sum()) if q == 0 else []
            parts.append(([special("<user>"), *images], False, 0))
            parts.append((self._text(question.text), False, q + 1))
            parts.append(([special("<assistant>")], False, 0))
            parts.append(([*self._text(question.answer), special("<eos>")], True, 0))
        ids = np.concatenate([part for part, _, _ in parts])
        answered = np.repeat([a for _, a, _ in parts], [len(p) for p, _, _ in parts])
        after = np.arange(len(ids) - 2 - int(kept.sum()))
        return {
            "slot_ids": slot_ids[place],
            "coordinates": np.stack([place // cols, place % cols], 1),
            "local_mask": np.ones(len(place), bool),
            "kept": kept[place],
            "relevant": relevant[place],
            "input_ids": ids,
            "attention_mask": np.ones(len(ids), np.int64),
            # As with keep_position_ids: every token stands where it would if none had been dropped.
            "position_ids": np.concatenate([[0, 1], 2 + np.flatnonzero(kept), 2 + len(run) + after]),
            "labels": np.where(answered, ids, IGNORED),
            "question_of": np.repeat([q for _, _, q in parts], [len(p) for p, _, _ in parts]),
        }

    def _distractors(
        self, rng: np.random.Generator, page: Page, run: np.ndarray, asked_runs: list[list[int]]
    ) -> np.ndarray:
        """Tokens of no question that stay in the row, bool [L]."""
        (least_blank, most_blank), (least_text, most_text) = self.settings.blanks, self.settings.distractors
        keep_blank, keep_text = rng.uniform(least_blank, most_blank), rng.uniform(least_text, most_text)
        stays: np.ndarray = rng.random(len(run)) < np.where(run < 0, keep_blank, keep_text)
        if most_text > 0 and rng.random() < 0.5:
            words = {word for runs in asked_runs for r in runs for word in page.runs[r].words}
            alike = [i for i, r in enumerate(page.runs) if words & set(r.words)]
            stays |= np.isin(run, alike)
        return stays

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


class AnswerCollator:
    """Pages -> a batch as the model is used, one question a row, with the labels of the losses beside the answer's.

    Returns `pixel_values` [V, 3, H, W], `image_grids` [I, 2] of the pages, `is_global` [V], `local_labels` [T, Q, K];
    the processor's `input_ids`, `attention_mask`, `question_mask` and `labels` [B, S]; `page_of` [B], the page that a
    row asks about, and `relevant` [B, L] in the order of the stitched map.
    """

    def __init__(self, processor: SlimeProcessor, shape: PageShape, vocabulary: SlotVocabulary) -> None:
        """Args: the processor, the token geometry, the slots."""
        self.processor, self.shape, self.vocabulary = processor, shape, vocabulary

    def __call__(self, pages: list[Page]) -> dict[str, torch.Tensor]:
        """Render, encode and label a list of pages."""
        side, view_size = self.shape.local_side, self.shape.view_size
        views = self.processor.image_processor([Image.fromarray(render(page)) for page in pages], return_tensors="pt")
        conversations: list[list[dict[str, Any]]] = []
        page_of, local_labels, relevant = [], [], []
        for index, page in enumerate(pages):
            grid = choose_grid(page.height, page.width, view_size, self.shape.max_tiles)
            labels = tile_token_labels(page, grid, self.vocabulary, side=side, view_size=view_size)
            local_labels.append(tile_order(labels.ids, side))
            for question in page.questions:
                asked = [{"type": "image"}, {"type": "text", "text": question.text}]
                turns: list[dict[str, Any]] = [{"role": "user", "content": asked}]
                conversations.append([*turns, {"role": "assistant", "content": question.answer}])
                page_of.append(index)
                relevant.append(np.isin(labels.run.reshape(-1), [*question.key_runs, *question.value_runs]))
        grids = views["image_grids"].tolist()
        rows = self.processor.encode_conversations(conversations, image_grids=[grids[page] for page in page_of])
        padded = np.zeros((len(relevant), max(map(len, relevant))), bool)
        for place, tokens in zip(padded, relevant, strict=True):
            place[: len(tokens)] = tokens
        tiles = [len(labels) for labels in local_labels]
        return {
            **rows,
            **views,
            "is_global": torch.cat([torch.arange(1 + n) == 0 for n in tiles]),
            "local_labels": torch.from_numpy(np.concatenate(local_labels)),
            "page_of": torch.tensor(page_of),
            "relevant": torch.from_numpy(padded),
        }
