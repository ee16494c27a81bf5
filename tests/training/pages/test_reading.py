from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from slime_vlm.model.configuration_recogniser import RecogniserConfig
from slime_vlm.model.recogniser_encoder import RecogniserEncoder
from slime_vlm.model.tiling import fit_to_grid
from slime_vlm.pages.readable import ReadablePage
from slime_vlm.training.pages.character_cells import NUM_CHARACTER_IDS, character_ids, characters_of
from slime_vlm.training.pages.reading import (
    PageReader,
    labelled_tiles,
    place_labels,
    read_page,
    reading_loss,
    reading_score,
    start_from_tiles,
    words_of_raster,
)

SHAPE = {"view_size": 64, "max_tiles": 6, "cell": 16}
"""Tiles of 48 px: 3 x 3 cells, 12 places in a row."""


def written_page(text: str = "Amount due 41", height: int = 48, width: int = 96) -> ReadablePage:
    """One line of text in letters 7 px wide."""
    image = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(12)
    boxes = []
    for k, character in enumerate(text):
        ImageDraw.Draw(image).text((2 + 7 * k, 18), character, "black", font)
        boxes.append((2 + 7 * k, 18, 9 + 7 * k, 30))
    lines = np.zeros(len(text), np.int32)
    return ReadablePage(np.asarray(image), text, np.array(boxes, np.float32), lines, [], "test", "", "train", 0, 7.0)


def small_reader(cell: int = 16) -> PageReader:
    torch.manual_seed(0)
    config = RecogniserConfig(
        stem_width=8, stage_widths=(8, 16), stage_depths=(1, 1), gated_blocks=((), ()), hidden_size=64, image_size=64
    )
    return PageReader(RecogniserEncoder(config), cell=cell, hidden=64)


def test_tiles_and_labels_lie_in_the_same_order() -> None:
    page = labelled_tiles(written_page(), **SHAPE)
    assert page.grid == (1, 2)
    assert page.pixels(torch.arange(2)).shape == (2, 3, 64, 64)
    assert page.ids.shape == (2, 3, 12, 2)
    # Letters of 7 px from 2: middles at 5.5, 12.5, …, in the second row of cells of 16 px. Tile 2 begins at 48.
    assert characters_of(page.ids[0, 1, :, 0].tolist()) == "Amount "
    assert characters_of(page.ids[1, 1, :, 0].tolist()) == "due 41"
    assert page.ids[0, 1, 1, 0] == character_ids("A")[0]
    assert not page.ids[:, [0, 2]].any()
    assert not page.ids[..., 1].any()
    assert page.words == ["Amount", "due", "41"]
    # Each shows 8 px of the other.
    assert page.pixels(torch.tensor([1]))[0, :, :, :8].min() < 0.5


def test_two_lines_of_a_cell_by_hand() -> None:
    """One tile of 32 px in four cells of 16 px; a box is (x0, y0, x1, y1)."""
    boxes = np.array([(0, 0, 4, 6), (8, 0, 12, 6), (1, 8, 3, 14), (16, 8, 20, 14), (18, 8, 19, 14)], np.float32)
    labels = place_labels("abcde", boxes, (32, 32), fit_to_grid(32, 32, 1, 1, 32), side=2, places=8)
    spelled = [characters_of([index]) for index in labels[0, :, 0].tolist()]
    # "e" stands where "d" does, a little to the right.
    assert spelled == ["a", "", "b", "", "d", "", "", ""]
    assert [characters_of([index]) for index in labels[0, :, 1].tolist()] == ["c"] + 7 * [""]
    assert not labels[1].any()


def test_characters_beyond_the_page_and_pages_without_any() -> None:
    grid = fit_to_grid(32, 32, 1, 1, 32)
    outside = np.array([(-8, 0, -4, 6), (0, 40, 4, 50)], np.float32)
    assert not place_labels("ab", outside, (32, 32), grid, side=2, places=8).any()
    assert not place_labels("", np.zeros((0, 4), np.float32), (32, 32), grid, side=2, places=8).any()


def test_the_loss_counts_for_each_character_by_hand() -> None:
    """Two places, one of which shows something: -log 0.5 - log 0.75."""
    logits = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    found = reading_loss(logits, torch.tensor([0, 1]))
    assert found.item() == pytest.approx(-np.log(0.5) - np.log(0.75))
    assert reading_loss(logits, torch.tensor([0, 0])).isfinite()


def test_a_reader_starts_from_the_spread_of_channels_and_the_frequencies_of_characters() -> None:
    reader = small_reader()
    page = labelled_tiles(written_page(), **SHAPE)
    with torch.no_grad():
        maps = reader.early_map(page.pixels(torch.arange(2)))
        maps = maps * torch.linspace(0.1, 10, maps.shape[1])[:, None, None] + 3
        start_from_tiles(reader, maps, page.ids)
        reader.character_names.linear.weight.zero_()
        found = reader(maps)[0, 0, 0].softmax(dim=-1)
    torch.testing.assert_close(reader.local_compressor.mean, maps.mean(dim=(0, 2, 3)))
    # 13 of 72 places show something on their first line. Each id counts once more.
    total = 72 + NUM_CHARACTER_IDS
    assert found[0, 0].item() == pytest.approx((72 - 13 + 1) / total, rel=1e-4)
    assert found[0, character_ids("A")[0]].item() == pytest.approx(2 / total, rel=1e-4)
    assert found[1, 0].item() == pytest.approx(73 / total, rel=1e-4)


def test_it_learns_a_page_by_heart() -> None:
    reader = small_reader()
    page = labelled_tiles(written_page(), **SHAPE)
    optimizer = torch.optim.AdamW(reader.parameters(), 3e-3)
    with torch.no_grad():
        start_from_tiles(reader, reader.early_map(page.pixels(torch.arange(2))), page.ids)
    for _ in range(100):
        loss = reading_loss(reader(reader.early_map(page.pixels(torch.arange(2)))), page.ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    score = reading_score(reader.eval(), page)
    assert score["cells"] == score["right"] == score["exact"] == 6
    assert score["words"] == score["whole"] == 3
    named = read_page(reader, page)
    assert characters_of(named.ids.tolist()) == "Amount due 41"
    # Tiles without labels are read when asked for.
    assert len(read_page(reader, page, whole=True).ids) == 13


def test_words_end_at_empty_cells_and_spaces() -> None:
    raster = np.zeros((2, 4, 3), np.int64)
    for (row, col), text in {(0, 0): "ab", (0, 1): "c d", (0, 3): "e", (1, 0): "f"}.items():
        raster[row, col, : len(text)] = character_ids(text)
    assert words_of_raster(raster) == ["abc", "d", "e", "f"]


def test_tiles_are_drawn_by_what_they_show() -> None:
    page = labelled_tiles(written_page("Am", height=144, width=48), **SHAPE)
    rng = np.random.default_rng(0)
    counts = np.zeros(2)
    for _ in range(50):
        pixels, ids = page.chosen(1, rng)
        assert len(pixels) == len(ids) == 1
        counts[int((ids > 0).any())] += 1
    assert counts[1] > counts[0] > 0


def test_ids_fit_the_names() -> None:
    assert character_ids("Ω").max() == NUM_CHARACTER_IDS - 1
    reader = small_reader()
    assert reader(reader.early_map(torch.zeros(1, 3, 64, 64))).shape == (1, 3, 12, 2, NUM_CHARACTER_IDS)
