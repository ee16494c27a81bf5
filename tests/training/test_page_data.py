from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slime_vlm.model.processing_slime import SlimeProcessor
from slime_vlm.pages import Page, PageSettings
from slime_vlm.training.models import page_vocabulary, start_model
from slime_vlm.training.page_data import (
    AnswerCollator,
    OracleCollator,
    PageDataset,
    PageShape,
    ReadCollator,
    tile_order,
)
from slime_vlm.training.recipe import OracleSettings, load_recipe

from .mini import PAGES, mini_recipe, write_recipe

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


def test_tile_order() -> None:
    raster = np.arange(4 * 6).reshape(4, 6)
    tiles = tile_order(raster, 2)
    assert tiles.shape == (6, 4)
    assert tiles[0].tolist() == [0, 1, 6, 7]
    assert tiles[1].tolist() == [2, 3, 8, 9]
    assert tiles[3].tolist() == [12, 13, 18, 19]


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


def turns_of(questions: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Messages that ask one question after the other about one picture."""
    turns: list[dict[str, Any]] = []
    for q, (asked, answered) in enumerate(questions):
        picture = [{"type": "image"}] if q == 0 else []
        turns.append({"role": "user", "content": [*picture, {"type": "text", "text": asked}]})
        turns.append({"role": "assistant", "content": answered})
    return turns


def asked_in(processor: SlimeProcessor, batch: dict[str, torch.Tensor], row: int) -> list[tuple[str, str]]:
    """Questions and answers of a row, read back from its tokens."""
    ids, labels, asks = batch["input_ids"][row], batch["labels"][row], batch["question_of"][row]
    written = [text_of(processor, ids[span]) for span in runs_of(labels != -100)]
    assert all(text.endswith("<eos>") for text in written)
    spoken = [text_of(processor, ids[asks == q + 1]) for q in range(len(written))]
    return [(question, text.removesuffix("<eos>")) for question, text in zip(spoken, written, strict=True)]


@pytest.mark.parametrize("asked", [1, 3])
def test_oracle_rows(local: SlimeProcessor, pages: list[Page], asked: int) -> None:
    vocabulary = page_vocabulary()
    settings = OracleSettings(questions=[asked], distractors=[0.2, 0.6], blanks=[0.0, 0.2])
    batch = OracleCollator(local, SHAPE, vocabulary, settings, seed=3)(pages)
    rows, length = batch["local_mask"].shape
    assert rows == len(pages)
    assert batch["slot_ids"].shape == (rows, length, vocabulary.num_slots)
    assert batch["coordinates"].shape == (rows, length, 2)
    assert batch["relevant"].shape == (rows, length, asked)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["question_of"].shape
    image = local.image_token_id
    for row, page in enumerate(pages):
        ids = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        relevant, kept = batch["relevant"][row].any(1), batch["kept"][row]
        # Every asked token stays, some are shown that do not, and there is a placeholder for each that stays.
        assert (kept | ~relevant).all()
        assert not kept[batch["local_mask"][row]].all()
        assert not kept[~batch["local_mask"][row]].any()
        assert int((ids == image).sum()) == int(kept.sum())

        questions = asked_in(local, batch, row)
        by_text = {question.text: question for question in page.questions}
        assert len(questions) == asked
        for q, (spoken, answered) in enumerate(questions):
            assert by_text[spoken].answer == answered
            assert bool(batch["relevant"][row, :, q].any()) == bool(by_text[spoken].value_runs)

        # What is packed here is what the processor makes of the same conversation, and what its template writes.
        picture = np.full((page.height, page.width, 3), 255, np.uint8)
        encoded = local.encode_conversations([turns_of(questions)], images=[[picture]])
        text = encoded["input_ids"][0] != image
        assert encoded["input_ids"][0][text].tolist() == ids[ids != image].tolist()
        assert encoded["labels"][0][text].tolist() == batch["labels"][row][: len(ids)][ids != image].tolist()
        tokenizer: Any = local.tokenizer
        template = tokenizer.apply_chat_template(turns_of(questions), tokenize=True, return_dict=False)
        assert [i for i in template if i != image] == ids[ids != image].tolist()


def test_oracle_rows_depend_on_nothing_but_the_page(local: SlimeProcessor, pages: list[Page]) -> None:
    collate = OracleCollator(local, SHAPE, page_vocabulary(), OracleSettings(), seed=3)
    first = collate(pages)
    torch.rand(3)
    np.random.default_rng().random()
    again = collate(pages)
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_batches_to_answer(processor: SlimeProcessor, pages: list[Page]) -> None:
    batch = AnswerCollator(processor, SHAPE, page_vocabulary())(pages)
    tiles = [int(grid.prod()) for grid in batch["image_grids"]]
    assert len(tiles) == len(pages)
    assert batch["pixel_values"].shape[0] == len(batch["is_global"]) == len(pages) + sum(tiles)
    assert batch["local_labels"].shape[:2] == (sum(tiles), 64)
    asked = [(index, question) for index, page in enumerate(pages) for question in page.questions]
    assert batch["page_of"].tolist() == [index for index, _ in asked]
    layout = processor.token_layout
    for row, (index, question) in enumerate(asked):
        ids, labels = batch["input_ids"][row], batch["labels"][row]
        assert text_of(processor, labels[labels != -100]) == question.answer + "<eos>"
        assert text_of(processor, ids[batch["question_mask"][row] == 1]) == question.text
        placeholders = int((ids == processor.image_token_id).sum())
        assert placeholders == layout.num_image_tokens(*batch["image_grids"][index].tolist())
        assert bool(batch["relevant"][row].any()) == bool(question.value_runs)
        assert not batch["relevant"][row][tiles[index] * 64 :].any()
