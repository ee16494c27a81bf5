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
from slime_vlm.training.page_labels import SlotVocabulary, cell_labels, global_token_labels, tile_token_labels

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

    A row is the beginning of a conversation, a placeholder for every local token, then question, answer and so on.
    Local tokens of no question are marked to be left out, as a selector would; how many stay is a setting.

    Returns `slot_ids` [B, L, K], `image_grids` [B, 2], `local_mask` [B, L], `kept` [B, L], `relevant` [B, L, n],
    `input_ids`, `attention_mask`, `labels` and `question_of` (1 + the question a token belongs to, 0 = none) [B, S];
    rows are padded on the right.
    """

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
        shape, vocabulary = self.shape, self.vocabulary
        rng = np.random.default_rng([self.seed, page.seed])
        grid = choose_grid(page.height, page.width, shape.view_size, shape.max_tiles)
        labels = tile_token_labels(page, grid, vocabulary, side=shape.local_side, view_size=shape.view_size)
        run = labels.run.reshape(-1)
        length = len(run)
        questions = [page.questions[i] for i in rng.permutation(len(page.questions))[:asked]]
        relevant = np.zeros((length, len(questions)), bool)
        for q, question in enumerate(questions):
            relevant[np.isin(run, [*question.key_runs, *question.value_runs]), q] = True
        (least_blank, most_blank), (least_text, most_text) = self.settings.blanks, self.settings.distractors
        keep_blank, keep_text = rng.uniform(least_blank, most_blank), rng.uniform(least_text, most_text)
        dropped = rng.random(length) >= np.where(run < 0, keep_blank, keep_text)
        kept = ~dropped | relevant.any(1)

        special: Any = self.tokenizer.convert_tokens_to_ids
        # (ids, whether the model has to write them, 1 + question they ask)
        parts: list[tuple[list[int], bool, int]] = [([special("<bos>")], False, 0)]
        for q, question in enumerate(questions):
            images = [special("<image>")] * length if q == 0 else []
            parts.append(([special("<user>"), *images], False, 0))
            parts.append((self._text(question.text), False, q + 1))
            parts.append(([special("<assistant>")], False, 0))
            parts.append(([*self._text(question.answer), special("<eos>")], True, 0))
        ids = np.concatenate([part for part, _, _ in parts])
        answered = np.repeat([a for _, a, _ in parts], [len(p) for p, _, _ in parts])
        return {
            "slot_ids": labels.ids.reshape(length, -1),
            "image_grids": np.array([grid.rows, grid.cols]),
            "local_mask": np.ones(length, bool),
            "relevant": relevant,
            "input_ids": ids,
            "attention_mask": np.ones(len(ids), np.int64),
            "labels": np.where(answered, ids, IGNORED),
            "kept": kept,
            "question_of": np.repeat([q for _, _, q in parts], [len(p) for p, _, _ in parts]),
        }

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


class AnswerCollator:
    """Pages -> a batch as the model is used, with the labels of the losses beside the answer's.

    Beside the processor's output: `is_global` [V], `local_labels` [T, Q, K], `local_mask` [B, L], `relevant` [B, L, n]
    in the order of the stitched map, and `question_of` [B, S].
    """

    def __init__(self, processor: SlimeProcessor, shape: PageShape, vocabulary: SlotVocabulary) -> None:
        """Args: the processor, the token geometry, the slots."""
        self.processor, self.shape, self.vocabulary = processor, shape, vocabulary

    def __call__(self, pages: list[Page]) -> dict[str, torch.Tensor]:
        """Render, encode and label a list of pages."""
        conversations = []
        for page in pages:
            turns: list[dict[str, Any]] = []
            for i, question in enumerate(page.questions):
                picture = [{"type": "image"}] if i == 0 else []
                asked = {"type": "text", "text": question.text}
                turns.append({"role": "user", "content": [*picture, asked]})
                turns.append({"role": "assistant", "content": question.answer})
            conversations.append(turns)
        images = [[Image.fromarray(render(page))] for page in pages]
        batch = dict(self.processor.encode_conversations(conversations, images=images, return_labels=True))
        local_labels, relevant = [], []
        for page in pages:
            grid = choose_grid(page.height, page.width, self.shape.view_size, self.shape.max_tiles)
            labels = tile_token_labels(
                page, grid, self.vocabulary, side=self.shape.local_side, view_size=self.shape.view_size
            )
            local_labels.append(tile_order(labels.ids, self.shape.local_side))
            run = labels.run.reshape(-1)
            asked_runs = [[*q.key_runs, *q.value_runs] for q in page.questions]
            relevant.append(np.stack([np.isin(run, runs) for runs in asked_runs], -1))
        length, questions = (max(r.shape[d] for r in relevant) for d in (0, 1))
        padded = np.zeros((len(pages), length, questions), bool)
        mask = np.zeros((len(pages), length), bool)
        for i, r in enumerate(relevant):
            padded[i, : r.shape[0], : r.shape[1]], mask[i, : r.shape[0]] = r, True
        asked_tokens = batch["question_mask"]
        starts = torch.diff(asked_tokens, dim=1, prepend=torch.zeros_like(asked_tokens[:, :1])) > 0
        tiles = [len(labels) for labels in local_labels]
        return {
            **batch,
            "is_global": torch.cat([torch.arange(1 + n) == 0 for n in tiles]),
            "local_labels": torch.from_numpy(np.concatenate(local_labels)),
            "local_mask": torch.from_numpy(mask),
            "relevant": torch.from_numpy(padded),
            "question_of": starts.long().cumsum(1) * asked_tokens,
        }
