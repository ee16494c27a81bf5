"""Rendered pages as training samples: an endless, indexed stream, so that a resumed run sees the very next page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from slime_vlm.model.tiling import choose_grid
from slime_vlm.pages import PageSettings, make_page, render
from slime_vlm.training.pages.labels import (
    UNKNOWN_WORD,
    SlotVocabulary,
    asked_tokens,
    cell_labels,
    global_token_labels,
    tile_token_labels,
)
from slime_vlm.training.pages.packed_questions import pack_questions, pad_rows

if TYPE_CHECKING:
    from slime_vlm.pages import Page
    from slime_vlm.processing.processing_slime import SlimeProcessor
    from slime_vlm.training.recipe import SymbolicTokensSettings


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


# Pixels; smaller letters cannot be told apart by a person either.
LEGIBLE = 13.0


def global_tokens(page: Page, vocabulary: SlotVocabulary, shape: PageShape) -> np.ndarray:
    """What the global view of a page shows, [1, N, K]."""
    side, view_size = shape.patch_side, shape.view_size
    squashed = global_token_labels(page, vocabulary, side=side, view_size=view_size, legible=LEGIBLE)
    return tile_order(squashed.ids, side)


class ReadCollator:
    """Pages -> views with the labels of every token, for the `read` objective.

    Returns pixel_values [V, 3, H, W] (global view first, then tiles, page after page), `is_global` [V], `local_labels`
    [T, Q, K], `patch_labels` [V, N, K], `cell_labels` [T, 4 N].
    """

    def __init__(
        self, processor: SlimeProcessor, shape: PageShape, vocabulary: SlotVocabulary, most_tiles: int | None = None
    ) -> None:
        """Args: the processor that cuts views, the token geometry, the slots, the most tiles of a page to look at."""
        self.processor, self.shape, self.vocabulary, self.most_tiles = processor, shape, vocabulary, most_tiles

    def labels(self, page: Page) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Label one page: local tokens [T, Q, K], patches of all views [1 + T, N, K], cells of tiles [T, 4 N]."""
        shape = self.shape
        view: dict[str, Any] = {"view_size": shape.view_size}
        grid = choose_grid(page.height, page.width, shape.view_size, shape.max_tiles)
        local = tile_token_labels(page, grid, self.vocabulary, side=shape.local_side, **view).ids
        patches = tile_token_labels(page, grid, self.vocabulary, side=shape.patch_side, **view).ids
        squashed = global_tokens(page, self.vocabulary, shape)
        views = np.concatenate([squashed, tile_order(patches, shape.patch_side)])
        cells = cell_labels(page, grid, self.vocabulary, side=2 * shape.patch_side, **view)
        return tile_order(local, shape.local_side), views, tile_order(cells, 2 * shape.patch_side)

    def __call__(self, pages: list[Page]) -> dict[str, torch.Tensor]:
        """Render and label a list of pages."""
        images = [Image.fromarray(render(page)) for page in pages]
        pixels = self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        local, patches, cells = zip(*(self.labels(page) for page in pages), strict=True)
        tiles = np.concatenate([self._looked_at(*page) for page in zip(pages, local, strict=True)])
        is_global = np.array([i == 0 for views in patches for i in range(len(views))])
        views = is_global.copy()
        views[~is_global] = tiles
        return {
            "pixel_values": pixels[torch.from_numpy(views)],
            "is_global": torch.from_numpy(is_global[views]),
            "local_labels": torch.from_numpy(np.concatenate(local)[tiles]),
            "patch_labels": torch.from_numpy(np.concatenate(patches)[views]),
            "cell_labels": torch.from_numpy(np.concatenate(cells)[tiles]),
        }

    def _looked_at(self, page: Page, local: np.ndarray) -> np.ndarray:
        """The tiles of a page to look at, bool [T]: drawn by how many of their tokens [T, Q, K] hold something."""
        looked_at = np.ones(len(local), bool)
        if self.most_tiles is not None and self.most_tiles < len(local):
            # One more, so that an empty tile can be drawn, too.
            weight = 1.0 + (local[..., -1] > 0).sum(1)
            rng = np.random.default_rng(page.seed)
            looked_at[:] = False
            looked_at[rng.choice(len(local), self.most_tiles, replace=False, p=weight / weight.sum())] = True
        return looked_at


class SymbolicTokensCollator:
    """Pages -> token contents and packed questions, for the `symbolic_tokens` objective; no pixels are rendered.

    Tokens of the asked keys and values stay; of the others those that share a word with them half of the time, and a
    share of all.

    Returns `slot_ids` and `doubted_ids` [B, L, K] (the same, with characters a little off), `coordinates` [B, L, 2],
    `places` [B, L] in an image of `length` [B, 1] tokens, `local_mask`, `kept` [B, L], `words` [B, L, 2] (what a token
    spells or belongs to; `words_told` [B, L] where the row tells it) and `relevant` [B, L, Q] of the kept tokens and of
    some others for the selector to tell apart; and the text of `pack_questions`.
    """

    # Tokens that are left out of the row but still shown to the selector's loss.
    REJECTED = 24

    def __init__(
        self,
        processor: SlimeProcessor,
        shape: PageShape,
        vocabulary: SlotVocabulary,
        questions: Sequence[int],
        settings: SymbolicTokensSettings,
        seed: int,
    ) -> None:
        """Args: the processor, token geometry, slots, numbers of questions a row, what is left in it, a seed."""
        self.tokenizer: Any = processor.tokenizer
        self.shape, self.vocabulary, self.settings = shape, vocabulary, settings
        self.questions, self.seed = questions, seed

    def __call__(self, pages: list[Page]) -> dict[str, torch.Tensor]:
        """Label and pack a list of pages."""
        asked = int(np.random.default_rng([self.seed, pages[0].seed]).choice(self.questions))
        return pad_rows([self._row(page, asked) for page in pages])

    def _row(self, page: Page, asked: int) -> dict[str, np.ndarray]:
        shape = self.shape
        rng = np.random.default_rng([self.seed, page.seed])
        grid = choose_grid(page.height, page.width, shape.view_size, shape.max_tiles)
        labels = tile_token_labels(page, grid, self.vocabulary, side=shape.local_side, view_size=shape.view_size)
        run, cols = labels.run.reshape(-1), labels.run.shape[1]
        slot_ids = labels.ids.reshape(len(run), -1)
        doubted = slot_ids.copy()
        if self.settings.jitter:
            off = rng.uniform(-self.settings.jitter, self.settings.jitter, 2)
            moved = tile_token_labels(
                page, grid, self.vocabulary, side=shape.local_side, view_size=shape.view_size, shift=(off[0], off[1])
            )
            # Characters and their offset alone: what a token belongs to is not in doubt.
            doubted[:, :-3] = moved.ids.reshape(doubted.shape)[:, :-3]
        questions = [page.questions[i] for i in rng.permutation(len(page.questions))[:asked]]
        asked_runs = [[*question.key_runs, *question.value_runs] for question in questions]
        relevant = np.stack([asked_tokens(page, labels, self.vocabulary, question) for question in questions], -1)
        kept = relevant.any(1) | self._distractors(rng, page, run, slot_ids[:, -1] == 0, asked_runs)
        if rng.random() < self.settings.unknown:
            # An encoder of small reach does not see which key a value stands beside; the language model then has to.
            beside = np.array([bool(r.word_runs) for r in page.runs] + [False])[run]
            slot_ids[beside, -3:-1] = np.where(slot_ids[beside, -3:-1] > 0, UNKNOWN_WORD, 0)
            doubted[beside, -3:-1] = slot_ids[beside, -3:-1]
        shown = kept.copy()
        shown[rng.permutation(np.flatnonzero(~kept))[: self.REJECTED]] = True
        place = np.flatnonzero(shown)

        words, told = self._words(page, run, kept, slot_ids)
        return {
            "slot_ids": slot_ids[place],
            "doubted_ids": doubted[place],
            "words": words[place],
            "words_told": told[place],
            "coordinates": np.stack([place // cols, place % cols], 1),
            "places": place,
            "length": np.array([len(run)]),
            "local_mask": np.ones(len(place), bool),
            "kept": kept[place],
            "relevant": relevant[place],
            **pack_questions(self.tokenizer, questions, labels.places),
        }

    def _words(
        self, page: Page, run: np.ndarray, kept: np.ndarray, slot_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Words [L, 2] that every token's run spells or belongs to, and whether the row's kept tokens tell them [L]."""
        words = np.zeros((len(page.runs) + 1, 2), np.int64)
        spelled_by = np.tile(np.arange(len(page.runs) + 1)[:, None], 2)
        for i, item in enumerate(page.runs):
            for k, word in enumerate(item.words[:2]):
                words[i, k] = self.vocabulary.word_id(word)
                if item.word_runs:
                    spelled_by[i, k] = item.word_runs[k]
        whole = np.array([bool(kept[run == i].all()) for i in range(len(page.runs))] + [False])
        known = whole[spelled_by[run]] | (slot_ids[:, -3:-1] != UNKNOWN_WORD)
        return words[run], kept & (run >= 0) & known.all(1)

    def _distractors(
        self, rng: np.random.Generator, page: Page, run: np.ndarray, blank: np.ndarray, asked_runs: list[list[int]]
    ) -> np.ndarray:
        """Tokens of no question that stay in the row, bool [L]."""
        (least_blank, most_blank), (least_text, most_text) = self.settings.blanks, self.settings.distractors
        keep_blank, keep_text = rng.uniform(least_blank, most_blank), rng.uniform(least_text, most_text)
        stays: np.ndarray = rng.random(len(run)) < np.where(blank, keep_blank, keep_text)
        if most_text > 0 and rng.random() < 0.5:
            words = {word for runs in asked_runs for r in runs for word in page.runs[r].words}
            alike = [i for i, r in enumerate(page.runs) if words & set(r.words)]
            stays |= np.isin(run, alike)
        return stays


class AnswerCollator:
    """Pages -> views and packed questions, with the labels of the losses beside the answer's.

    Returns `pixel_values` [V, 3, H, W], `image_grids` [B, 2], `is_global` [V], `local_labels` [T, N, K], `relevant`
    [B, L, Q] in the order of the stitched map, and the text of `pack_questions`; `global_labels` [B, N, K] where asked.
    """

    def __init__(
        self,
        processor: SlimeProcessor,
        shape: PageShape,
        vocabulary: SlotVocabulary,
        questions: Sequence[int],
        seed: int,
        label_global: bool = False,
    ) -> None:
        """Args: the processor, token geometry, slots, numbers of questions a row, a seed, whether to label the view."""
        self.processor, self.shape, self.vocabulary = processor, shape, vocabulary
        self.questions, self.seed, self.label_global = questions, seed, label_global

    def __call__(self, pages: list[Page]) -> dict[str, torch.Tensor]:
        """Render and label a list of pages."""
        side, view_size = self.shape.local_side, self.shape.view_size
        views = self.processor.image_processor([Image.fromarray(render(page)) for page in pages], return_tensors="pt")
        asked = int(np.random.default_rng([self.seed, pages[0].seed]).choice(self.questions))
        rows, local_labels = [], []
        for page in pages:
            grid = choose_grid(page.height, page.width, view_size, self.shape.max_tiles)
            labels = tile_token_labels(page, grid, self.vocabulary, side=side, view_size=view_size)
            local_labels.append(tile_order(labels.ids, side))
            questions = page.questions[:asked]
            relevant = np.stack([asked_tokens(page, labels, self.vocabulary, question) for question in questions], -1)
            rows.append({"relevant": relevant, **pack_questions(self.processor.tokenizer, questions, labels.places)})
        batch = {}
        if self.label_global:
            ids = [global_tokens(page, self.vocabulary, self.shape) for page in pages]
            batch["global_labels"] = torch.from_numpy(np.concatenate(ids))
        return {
            **batch,
            **pad_rows(rows),
            **views,
            "is_global": torch.cat([torch.arange(1 + len(labels)) == 0 for labels in local_labels]),
            "local_labels": torch.from_numpy(np.concatenate(local_labels)),
        }
