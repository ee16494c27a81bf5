from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from slime_vlm.model.configuration_recogniser import RecogniserConfig
from slime_vlm.model.query_attention import QueryAttention
from slime_vlm.model.recogniser_encoder import RecogniserEncoder
from slime_vlm.pages.readable import ReadablePage
from slime_vlm.training.pages.character_cells import NUM_CHARACTER_IDS, character_ids, characters_of
from slime_vlm.training.pages.reading import (
    PageReader,
    labelled_tiles,
    reading_loss,
    reading_score,
    start_from_tiles,
    start_reading,
)

SHAPE = {"view_size": 64, "max_tiles": 6, "side": 4, "slots": 5}


def written_page(text: str = "Amount due 41.50", height: int = 64, width: int = 128) -> ReadablePage:
    """One line of text in letters 7 px wide."""
    image = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(12)
    boxes = []
    for k, character in enumerate(text):
        ImageDraw.Draw(image).text((2 + 7 * k, 18), character, "black", font)
        boxes.append((2 + 7 * k, 18, 9 + 7 * k, 34))
    lines = np.zeros(len(text), np.int32)
    return ReadablePage(np.asarray(image), text, np.array(boxes, np.float32), lines, [], "test", "", "train", 0, 7.0)


def small_reader() -> PageReader:
    torch.manual_seed(0)
    config = RecogniserConfig(
        stem_width=8, stage_widths=(8, 16), stage_depths=(1, 1), gated_blocks=((), ()), hidden_size=64, image_size=64
    )
    return PageReader(RecogniserEncoder(config), num_queries=16, num_heads=4, slots=5, hidden=64)


def test_tiles_and_labels_lie_in_the_same_order() -> None:
    page = labelled_tiles(written_page(), **SHAPE)
    assert page.grid == (1, 2)
    assert page.pixels(torch.arange(2)).shape == (2, 3, 64, 64)
    assert page.ids.shape == (2, 16, 8, 5)
    assert page.weights.shape == (2, 16, 8)
    # Letters of 7 px from 2: middles at 5.5, 12.5 | 19.5, …; the second row of cells of 16 px. Tile 2 begins at 64.
    rows = [[characters_of(page.ids[tile, 4 + col, 0].tolist()) for col in range(4)] for tile in (0, 1)]
    assert "".join(rows[0]) == "Amount du"
    assert "".join(rows[1]) == "e 41.50"
    assert page.pixels(torch.tensor([0])).min() < -0.5
    assert page.pixels(torch.tensor([1])).max() == 1.0
    assert (page.ids[:, :4] == 0).all()


def test_the_loss_of_a_cell_with_two_readings_by_hand() -> None:
    """Three characters and one slot: probabilities 0.5, 0.3, 0.2; the label is 1 (0.75) or nothing (0.25)."""
    logits = torch.tensor([[[0.5, 0.3, 0.2]]]).log()
    ids = torch.tensor([[[1], [0]]])
    found = reading_loss(logits, ids, torch.tensor([[0.75, 0.25]]))
    assert found.item() == pytest.approx(-np.log(0.75 * 0.3 + 0.25 * 0.5))


def test_blank_cells_count_less() -> None:
    logits = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]]).log()
    ids = torch.tensor([[[0]], [[1]]])
    found = reading_loss(logits, ids, torch.ones(2, 1), blank_weight=0.5)
    assert found.item() == pytest.approx(-(0.5 * np.log(0.5) + np.log(0.75)) / 1.5)


def test_alternatives_without_weight_give_no_nan() -> None:
    page = labelled_tiles(written_page(), **SHAPE)
    logits = torch.zeros(2, 16, 5, NUM_CHARACTER_IDS, requires_grad=True)
    reading_loss(logits, page.ids, page.weights).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_heads_look_at_their_part_of_the_surroundings() -> None:
    """4 x 4 queries over 14 x 14 features, one of them a margin: heads 0 to 8 look at the ninths of a cell."""
    attention = QueryAttention(num_queries=16, dim=384, num_heads=12, margin=1 / 14)
    start_reading(attention)
    with torch.no_grad():
        queries = attention.q_proj(attention.position_table)
        keys = attention.k_proj(attention.input_positions(196))
    scores = torch.einsum("qhd,khd->hqk", queries.unflatten(-1, (12, 32)), keys.unflatten(-1, (12, 32)))
    # Query 6 is in row 1 and column 2 and covers rows 4 to 6 and columns 7 to 9 of the features.
    expected = {0: (4, 7), 2: (4, 9), 4: (5, 8), 8: (6, 9), 9: (5, 6), 10: (5, 10), 11: (5, 8)}
    assert {head: divmod(int(scores[head, 6].argmax()), 14) for head in expected} == expected


def test_what_a_token_says_at_the_start_is_what_its_cell_shows() -> None:
    """The values of the attention are not small beside its biases, so tokens of different tiles differ."""
    torch.manual_seed(0)
    attention = QueryAttention(num_queries=64, dim=384, num_heads=12)
    start_reading(attention)
    with torch.no_grad():
        tokens = attention(0.3 * torch.randn(8, 256, 384))
    assert tokens.std(dim=0).mean() > 0.8


def test_a_reader_starts_from_the_spread_of_channels_and_the_frequencies_of_characters() -> None:
    reader = small_reader()
    page = labelled_tiles(written_page(), **SHAPE)
    with torch.no_grad():
        maps = reader.early_map(page.pixels(torch.arange(2)))
        maps = maps * torch.linspace(0.1, 10, maps.shape[1])[:, None, None] + 3
        start_from_tiles(reader, maps, page.ids, blank_weight=0.5)
        mean = maps.mean(dim=(0, 2, 3), keepdim=True).expand_as(maps)
        features = reader.vision_tower.projection(mean)
        reader.head[-1].weight.zero_()
        found = reader(maps)[0, 0].softmax(dim=-1)
    # The mean of every channel is the zero of the features.
    assert features.abs().max() < 1e-3
    # Of 32 cells seven show something, the others count half. Each of the ids counts once more.
    first = page.ids[:, :, 0, 0].flatten().tolist()
    total = 7 + 0.5 * 25 + NUM_CHARACTER_IDS
    assert first.count(0) == 25
    assert found[0, 0].item() == pytest.approx((25 * 0.5 + 1) / total, rel=1e-4)
    letter = character_ids("A")[0]
    assert found[0, letter].item() == pytest.approx(2 / total, rel=1e-4)


def test_it_learns_a_page_by_heart() -> None:
    reader = small_reader()
    page = labelled_tiles(written_page(), **SHAPE)
    optimizer = torch.optim.AdamW(reader.parameters(), 3e-3)
    for _ in range(150):
        loss = reading_loss(reader(reader.early_map(page.pixels(torch.arange(2)))), page.ids, page.weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    score = reading_score(reader.eval(), page)
    assert score["cells"] == 7
    assert score["right"] == score["cells"]


def test_tiles_are_drawn_by_what_they_show() -> None:
    page = labelled_tiles(written_page("Am", height=192, width=64), **SHAPE)
    rng = np.random.default_rng(0)
    counts = np.zeros(2)
    for _ in range(50):
        pixels, ids, weights = page.chosen(1, rng)
        assert len(pixels) == len(ids) == len(weights) == 1
        counts[int((ids[0, :, 0, 0] > 0).any())] += 1
    assert counts[1] > counts[0] > 0


def test_ids_fit_the_head() -> None:
    assert character_ids("Ω").max() == NUM_CHARACTER_IDS - 1
    reader = small_reader()
    assert reader(reader.early_map(torch.zeros(1, 3, 64, 64))).shape == (1, 16, 5, NUM_CHARACTER_IDS)
