"""Rendered pages as training samples. They are addressed by index, so a resumed run continues at the next page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from slime_vlm.model.tiling import choose_grid, image_to_tile_order
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
    from slime_vlm.model.tiling import TileGrid
    from slime_vlm.pages import Page
    from slime_vlm.processing.processing_slime import SlimeProcessor
    from slime_vlm.training.recipe import SymbolicTokensSettings


class PageDataset(Dataset):
    """Pages by index. Item i is the page of seed `first_seed + i`, laid out at every access; nothing is stored.

    Args:
        settings: Settings of the renderer.
        count: Number of pages.
        first_seed: Seed of the first page.
    """

    def __init__(self, settings: PageSettings, count: int, first_seed: int) -> None:
        self.settings, self.count, self.first_seed = settings, count, first_seed

    def __len__(self) -> int:
        """Return the number of pages."""
        return self.count

    def __getitem__(self, index: int) -> Page:
        """Return the page of this index."""
        return make_page(self.first_seed + index, self.settings)


def _by_tile(raster: np.ndarray, grid: TileGrid) -> np.ndarray:
    """Regroup a raster over the whole image [height, width, ...] tile by tile: [T, side * side, ...]."""
    return image_to_tile_order(raster.reshape(-1, *raster.shape[2:]), grid.rows, grid.cols)


@dataclass(frozen=True)
class PageShape:
    """The token geometry of a model, which the labels of a page depend on."""

    view_size: int
    max_tiles: int
    local_side: int
    patch_side: int


# Height in pixels. Smaller letters are illegible to a person, too.
LEGIBLE = 13.0


def global_tokens(page: Page, vocabulary: SlotVocabulary, shape: PageShape) -> np.ndarray:
    """Return the labels of the global view of a page, [1, N, K]."""
    side, view_size = shape.patch_side, shape.view_size
    squashed = global_token_labels(page, vocabulary, side=side, view_size=view_size, legible=LEGIBLE)
    return squashed.ids.reshape(1, side * side, -1)


class ReadCollator:
    """Collate pages into views with labels for every token, for the `read` objective.

    A batch has `pixel_values` [V, 3, H, W] (page by page, the global view before the tiles), `is_global` [V],
    `local_labels` [T, Q, K], `patch_labels` [V, N, K] and `cell_labels` [T, 4 N].

    Args:
        processor: Cuts the views.
        shape: Token geometry of the model.
        vocabulary: Slots of a token.
        most_tiles: Most tiles of a page to use; None for all.
    """

    def __init__(
        self, processor: SlimeProcessor, shape: PageShape, vocabulary: SlotVocabulary, most_tiles: int | None = None
    ) -> None:
        self.processor, self.shape, self.vocabulary, self.most_tiles = processor, shape, vocabulary, most_tiles

    def labels(self, page: Page) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Label one page: local tokens [T, Q, K], patches of all views [1 + T, N, K], cells of tiles [T, 4 N]."""
        shape = self.shape
        view: dict[str, Any] = {"view_size": shape.view_size}
        grid = choose_grid(page.height, page.width, shape.view_size, shape.max_tiles)
        local = tile_token_labels(page, grid, self.vocabulary, side=shape.local_side, **view).ids
        patches = tile_token_labels(page, grid, self.vocabulary, side=shape.patch_side, **view).ids
        squashed = global_tokens(page, self.vocabulary, shape)
        views = np.concatenate([squashed, _by_tile(patches, grid)])
        cells = cell_labels(page, grid, self.vocabulary, side=2 * shape.patch_side, **view)
        return _by_tile(local, grid), views, _by_tile(cells, grid)

    def __call__(self, pages: list[Page]) -> dict[str, torch.Tensor]:
        """Render and label a list of pages."""
        images = [Image.fromarray(render(page)) for page in pages]
        pixels = self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        local, patches, cells = zip(*(self.labels(page) for page in pages), strict=True)
        tiles = np.concatenate([self._chosen_tiles(*page) for page in zip(pages, local, strict=True)])
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

    def _chosen_tiles(self, page: Page, local: np.ndarray) -> np.ndarray:
        """Draw the tiles of a page to use, bool [T], by how many of their tokens [T, Q, K] hold something."""
        chosen = np.ones(len(local), bool)
        if self.most_tiles is not None and self.most_tiles < len(local):
            # The one lets empty tiles be drawn, too.
            weight = 1.0 + (local[..., -1] > 0).sum(1)
            rng = np.random.default_rng(page.seed)
            chosen[:] = False
            chosen[rng.choice(len(local), self.most_tiles, replace=False, p=weight / weight.sum())] = True
        return chosen


class SymbolicTokensCollator:
    """Collate pages into token contents and packed questions, for the `symbolic_tokens` objective.

    No pixels are rendered. A row keeps the tokens of the asked keys and values, a random share of all other tokens, and
    in half of the rows the tokens that share a word with the asked ones.

    A batch has the text of `pack_questions`, and for the kept tokens and some dropped ones (which the selector has to
    tell apart): `slot_ids` [B, L, K], `doubted_ids` [B, L, K] (the same with shifted characters), `coordinates`
    [B, L, 2], `token_indices` [B, L] in an image of `length` [B, 1] tokens, `local_mask` [B, L], `kept` [B, L], `words`
    [B, L, 2] (that a token spells or belongs to), `words_known` [B, L] (whether the row shows them) and `relevant`
    [B, L, Q].

    Args:
        processor: Gives the tokenizer.
        shape: Token geometry of the model.
        vocabulary: Slots of a token.
        questions: Numbers of questions per row, one of which is drawn per batch.
        settings: Which tokens stay in a row.
        seed: Seed of all draws.
    """

    # Tokens left out of the row that the selector's loss still contrasts with the relevant ones.
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
            # Only characters and their offset shift. The words that a token belongs to are not in doubt.
            doubted[:, :-3] = moved.ids.reshape(doubted.shape)[:, :-3]
        questions = [page.questions[i] for i in rng.permutation(len(page.questions))[:asked]]
        asked_runs = [[*question.key_runs, *question.value_runs] for question in questions]
        relevant = np.stack([asked_tokens(page, labels, self.vocabulary, question) for question in questions], -1)
        kept = relevant.any(1) | self._distractors(rng, page, run, slot_ids[:, -1] == 0, asked_runs)
        if rng.random() < self.settings.unknown:
            # An encoder with a small receptive field does not see the key beside a value. The language model has to
            # find it.
            beside = np.array([bool(r.word_runs) for r in page.runs] + [False])[run]
            slot_ids[beside, -3:-1] = np.where(slot_ids[beside, -3:-1] > 0, UNKNOWN_WORD, 0)
            doubted[beside, -3:-1] = slot_ids[beside, -3:-1]
        shown = kept.copy()
        shown[rng.permutation(np.flatnonzero(~kept))[: self.REJECTED]] = True
        index = np.flatnonzero(shown)

        words, known = self._words(page, run, kept, slot_ids)
        return {
            "slot_ids": slot_ids[index],
            "doubted_ids": doubted[index],
            "words": words[index],
            "words_known": known[index],
            "coordinates": np.stack([index // cols, index % cols], 1),
            "token_indices": index,
            "length": np.array([len(run)]),
            "local_mask": np.ones(len(index), bool),
            "kept": kept[index],
            "relevant": relevant[index],
            **pack_questions(self.tokenizer, questions, labels.character_tokens),
        }

    def _words(
        self, page: Page, run: np.ndarray, kept: np.ndarray, slot_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the words [L, 2] that every token's run spells or belongs to, and whether the row shows them [L]."""
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
        """Draw the tokens outside of every question that stay in the row, bool [L]."""
        (least_blank, most_blank), (least_text, most_text) = self.settings.blanks, self.settings.distractors
        keep_blank, keep_text = rng.uniform(least_blank, most_blank), rng.uniform(least_text, most_text)
        stays: np.ndarray = rng.random(len(run)) < np.where(blank, keep_blank, keep_text)
        if most_text > 0 and rng.random() < 0.5:
            words = {word for runs in asked_runs for r in runs for word in page.runs[r].words}
            similar = [i for i, r in enumerate(page.runs) if words & set(r.words)]
            stays |= np.isin(run, similar)
        return stays


class AnswerCollator:
    """Collate pages into views and packed questions, with the labels of all auxiliary losses.

    A batch has the text of `pack_questions`, `pixel_values` [V, 3, H, W], `image_grids` [B, 2], `is_global` [V],
    `local_labels` [T, Q, K], `relevant` [B, L, Q] in image order, and `global_labels` [B, N, K] on request.

    Args:
        processor: Cuts the views and gives the tokenizer.
        shape: Token geometry of the model.
        vocabulary: Slots of a token.
        questions: Numbers of questions per row, one of which is drawn per batch.
        seed: Seed of that draw.
        label_global: Whether to label the global view.
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
            local_labels.append(_by_tile(labels.ids, grid))
            questions = page.questions[:asked]
            relevant = np.stack([asked_tokens(page, labels, self.vocabulary, question) for question in questions], -1)
            rows.append(
                {"relevant": relevant, **pack_questions(self.processor.tokenizer, questions, labels.character_tokens)}
            )
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
