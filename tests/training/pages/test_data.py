from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slime_vlm.pages import Page, PageSettings
from slime_vlm.processing.processing_slime import SlimeProcessor
from slime_vlm.training.models import start_model
from slime_vlm.training.pages.data import (
    AnswerCollator,
    PageDataset,
    PageShape,
    ReadCollator,
    SymbolicTokensCollator,
)
from slime_vlm.training.pages.labels import page_vocabulary
from slime_vlm.training.recipe import SymbolicTokensSettings, load_recipe
from tests.training.mini import PAGES, mini_recipe, write_recipe

SHAPE = PageShape(view_size=256, max_tiles=7, local_side=8, patch_side=16)


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    settings = PageSettings.from_dict({**PAGES, "kinds": {"form": 0.5, "table": 0.5}, "tiles": [2, 3]})
    dataset = PageDataset(settings, 6, first_seed=40)
    return [dataset[i] for i in (0, 1, 2)]


@pytest.fixture(scope="module", params=["local", "both"])
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SlimeProcessor:
    path: Path = write_recipe(tmp_path_factory.mktemp("recipe"), mini_recipe())
    return start_model(load_recipe(path), {"views": request.param})[1]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> SlimeProcessor:
    return start_model(load_recipe(write_recipe(tmp_path_factory.mktemp("recipe"), mini_recipe())), {"views": "local"})[
        1
    ]


def text_of(processor: SlimeProcessor, ids: torch.Tensor) -> str:
    tokenizer: Any = processor.tokenizer
    return tokenizer.decode(ids)


def runs_of(mask: torch.Tensor) -> list[slice]:
    """Stretches of a mask that are set."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.int().numpy(), 0]))
    return [slice(*edge) for edge in list(pairwise(edges))[::2]]


def test_an_index_is_a_page() -> None:
    settings = PageSettings.from_dict(PAGES)
    some, later = PageDataset(settings, 10, 100), PageDataset(settings, 10, 103)
    assert len(some) == 10
    assert some[3].seed == later[0].seed == 103
    assert [run.text for run in some[3].runs] == [run.text for run in later[0].runs]


def test_batches_to_read(local: SlimeProcessor, pages: list[Page]) -> None:
    vocabulary = page_vocabulary()
    batch = ReadCollator(local, SHAPE, vocabulary)(pages)
    views, tiles = len(batch["is_global"]), int((~batch["is_global"]).sum())
    assert int(batch["is_global"].sum()) == len(pages)
    assert batch["pixel_values"].shape == (views, 3, 256, 256)
    assert batch["local_labels"].shape == (tiles, 64, vocabulary.num_slots)
    assert batch["patch_labels"].shape == (views, 256, vocabulary.num_slots)
    assert batch["cell_labels"].shape == (tiles, 1024)
    sizes = torch.tensor(vocabulary.sizes)
    for labels in (batch["local_labels"], batch["patch_labels"]):
        assert (labels >= 0).all()
        assert (labels < sizes).all()
    assert batch["local_labels"].any()
    assert batch["cell_labels"].any()


def test_some_tiles_to_read(local: SlimeProcessor) -> None:
    """Those that are drawn are whole: pixels and labels of one tile of the page."""
    settings = PageSettings.from_dict({**PAGES, "tiles": [4, 7]})
    pages = [PageDataset(settings, 2, first_seed=40)[i] for i in range(2)]
    every = ReadCollator(local, SHAPE, page_vocabulary())(pages)
    few = ReadCollator(local, SHAPE, page_vocabulary(), most_tiles=2)(pages)
    assert few["is_global"].tolist() == [True, False, False] * 2
    assert len(every["is_global"]) >= 10
    places = [int((every["pixel_values"] == view).flatten(1).all(1).nonzero()[0]) for view in few["pixel_values"]]
    assert torch.equal(few["patch_labels"], every["patch_labels"][places])
    tile = (~every["is_global"]).cumsum(0) - 1
    drawn = [int(tile[place]) for place in places if not every["is_global"][place]]
    assert len(drawn) == len(set(drawn)) == 4
    for key in ("local_labels", "cell_labels"):
        assert torch.equal(few[key], every[key][drawn])
    again = ReadCollator(local, SHAPE, page_vocabulary(), most_tiles=2)(pages[::-1])
    assert torch.equal(again["local_labels"], few["local_labels"].roll(2, 0)), "depends on the page alone"


def test_tiles_with_text_are_drawn_more_often(local: SlimeProcessor, pages: list[Page]) -> None:
    collate = ReadCollator(local, SHAPE, page_vocabulary(), most_tiles=1)
    tiles = np.zeros((3, 64, 9), np.int64)
    tiles[1, :20, -1] = 1
    drawn = sum(collate._chosen_tiles(replace(pages[0], seed=seed), tiles).astype(int) for seed in range(230))
    # 1, 21 and 1 of 23.
    assert 190 < drawn[1] < 225
    assert min(drawn[0], drawn[2]) > 0
    assert ReadCollator(local, SHAPE, page_vocabulary(), 3)._chosen_tiles(pages[0], tiles).all()


def turns_of(asked: str, answered: str) -> list[dict[str, Any]]:
    """Messages of one question about an image."""
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}
    return [user, {"role": "assistant", "content": answered}]


def asked_in(processor: SlimeProcessor, batch: dict[str, torch.Tensor], row: int) -> list[tuple[str, str]]:
    """Questions and answers of a packed row, read back from its tokens."""
    ids, labels, owner = batch["input_ids"][row], batch["labels"][row], batch["question_of"][row]
    found = []
    for q in range(1, int(owner.max()) + 1):
        spoken = text_of(processor, ids[(owner == q) & batch["question_mask"][row]])
        written = text_of(processor, ids[(owner == q) & (labels != -100)])
        assert written.endswith("<eos>")
        found.append((spoken, written.removesuffix("<eos>")))
    return found


def check_packed_text(processor: SlimeProcessor, batch: dict[str, torch.Tensor], pages: list[Page], asked: int) -> None:
    """Every question of every row, with the head, is what the processor makes of it and what the template writes."""
    placeholder = processor.image_token_id
    for row, page in enumerate(pages):
        owner = batch["question_of"][row]
        questions = asked_in(processor, batch, row)
        by_text = {question.text: question for question in page.questions}
        assert len(questions) == asked
        for q, (spoken, answered) in enumerate(questions, 1):
            assert by_text[spoken].answer == answered
            assert bool(batch["relevant"][row, :, q - 1].any()) == bool(by_text[spoken].value_runs)
            alone = torch.cat([torch.arange(2), (owner == q).nonzero()[:, 0]])
            image = np.full((page.height, page.width, 3), 255, np.uint8)
            encoded = processor.encode_conversations([turns_of(spoken, answered)], images=[[image]])
            text = encoded["input_ids"][0] != placeholder
            for key in ("input_ids", "labels", "question_mask"):
                assert encoded[key][0][text].tolist() == batch[key][row][alone].int().tolist()
            tokenizer: Any = processor.tokenizer
            template = tokenizer.apply_chat_template(turns_of(spoken, answered), tokenize=True, return_dict=False)
            assert [i for i in template if i != placeholder] == batch["input_ids"][row][alone].tolist()


@pytest.mark.parametrize("asked", [1, 3])
def test_symbolic_rows(local: SlimeProcessor, pages: list[Page], asked: int) -> None:
    vocabulary = page_vocabulary()
    settings = SymbolicTokensSettings(distractors=[0.2, 0.6], blanks=[0.0, 0.2])
    batch = SymbolicTokensCollator(local, SHAPE, vocabulary, [asked], settings, seed=3)(pages)
    rows, length = batch["local_mask"].shape
    assert rows == len(pages)
    assert batch["slot_ids"].shape == (rows, length, vocabulary.num_slots)
    assert batch["coordinates"].shape == (rows, length, 2)
    assert batch["relevant"].shape == (rows, length, asked)
    for row in range(rows):
        relevant, kept = batch["relevant"][row].any(1), batch["kept"][row]
        # Every asked token stays, and some are shown to the selector that do not.
        assert (kept | ~relevant).all()
        assert not kept[batch["local_mask"][row]].all()
        assert not kept[~batch["local_mask"][row]].any()
    check_packed_text(local, batch, pages, asked)


def test_context_words_are_those_of_the_run(local: SlimeProcessor, pages: list[Page]) -> None:
    """A token that does not tell what it belongs to is asked for it only where the row's other tokens do."""
    vocabulary = page_vocabulary()
    everything = SymbolicTokensSettings(distractors=[1.0, 1.0], blanks=[1.0, 1.0], unknown=1.0)
    batch = SymbolicTokensCollator(local, SHAPE, vocabulary, [8], everything, seed=3)(pages)
    text = batch["slot_ids"][..., -1] > 0
    assert torch.equal(batch["words_known"], text)
    unknown = batch["slot_ids"][..., -3:-1] == 1
    assert unknown.any()
    assert (batch["words"][unknown] > 1).all()
    known = (batch["slot_ids"][..., -3:-1] > 1) & text[..., None]
    assert torch.equal(batch["slot_ids"][..., -3:-1][known], batch["words"][known])

    alone = SymbolicTokensSettings(distractors=[0.0, 0.0], blanks=[0.0, 0.0], unknown=1.0)
    batch = SymbolicTokensCollator(local, SHAPE, vocabulary, [1], alone, seed=3)(pages)
    assert not batch["words_known"][~batch["kept"]].any()


def test_symbolic_rows_depend_on_nothing_but_the_page(local: SlimeProcessor, pages: list[Page]) -> None:
    collate = SymbolicTokensCollator(local, SHAPE, page_vocabulary(), [1, 2], SymbolicTokensSettings(), seed=3)
    first = collate(pages)
    torch.rand(3)
    np.random.default_rng().random()
    again = collate(pages)
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_batches_to_answer(processor: SlimeProcessor, pages: list[Page]) -> None:
    batch = AnswerCollator(processor, SHAPE, page_vocabulary(), [3], seed=1)(pages)
    tiles = [int(grid.prod()) for grid in batch["image_grids"]]
    assert len(tiles) == len(pages)
    assert batch["pixel_values"].shape[0] == len(batch["is_global"]) == len(pages) + sum(tiles)
    assert batch["local_labels"].shape[:2] == (sum(tiles), 64)
    assert batch["relevant"].shape == (len(pages), 64 * max(tiles), 3)
    for row, count in enumerate(tiles):
        assert not batch["relevant"][row][count * 64 :].any()
    check_packed_text(processor, batch, pages, 3)


def test_characters_in_doubt_move_by_a_token_at_most(local: SlimeProcessor, pages: list[Page]) -> None:
    vocabulary = page_vocabulary()
    plain = SymbolicTokensSettings(distractors=[1.0, 1.0], blanks=[1.0, 1.0], unknown=0.5)
    sure = SymbolicTokensCollator(local, SHAPE, vocabulary, [2], plain, seed=3)(pages)
    assert torch.equal(sure["slot_ids"], sure["doubted_ids"])
    batch = SymbolicTokensCollator(local, SHAPE, vocabulary, [2], replace(plain, jitter=4.0), seed=3)(pages)
    ids, doubted = batch["slot_ids"], batch["doubted_ids"]
    assert torch.equal(ids[..., -3:], doubted[..., -3:])
    moved = (ids != doubted).any(-1)
    assert 0 < moved.float().mean() < 0.5
    for row in range(len(pages)):
        # Nothing is lost but what a token has no slot for: the page's characters are all still there.
        before, after = (sorted(held[row][..., :-4].flatten().tolist()) for held in (ids, doubted))
        kept = sum((Counter(before) & Counter(after)).values())
        assert kept > 0.95 * len(before)
