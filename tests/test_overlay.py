"""The heat map lies where the tokens are, at any picture size, and its caption holds any text."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slime_vlm.model.tiling import choose_grid
from slime_vlm.overlay import LocalSelection, draw_overlay

SIDE = 12


def selection_of(height: int, width: int, kept: list[int], scores: bool = True) -> LocalSelection:
    grid = choose_grid(height, width)
    total = grid.num_tiles * SIDE * SIDE
    mask = np.zeros(total, bool)
    mask[kept] = True
    return LocalSelection(grid, SIDE, mask, np.linspace(-1, 1, total) if scores else None)


def is_grey(pixel: np.ndarray) -> bool:
    return int(pixel.max()) - int(pixel.min()) <= 2


def test_kept_tokens_are_tinted_where_they_lie():
    # 1344 x 672 fills a grid of 3 x 2 not exactly; 1008 x 672 does: 36 x 24 tokens of 28 px each.
    image = Image.new("RGB", (672, 1008), "white")
    row, col = 20, 5
    selection = selection_of(1008, 672, [row * 24 + col])
    assert (selection.grid.rows, selection.grid.cols) == (3, 2)
    drawn = np.asarray(draw_overlay(image, selection, "q", "a"))
    for y in range(36):
        for x in range(24):
            assert is_grey(drawn[y * 28 + 14, x * 28 + 14]) == ((y, x) != (row, col)), (y, x)


def test_black_border_of_the_canvas_is_no_part_of_the_picture():
    # 480 x 640 becomes 504 x 672 on a 672 x 672 canvas, 84 rows down: exactly three rows of tokens lie on the border.
    image = Image.new("RGB", (1280, 960), "white")
    image = image.resize((640, 480))
    on_border = selection_of(480, 640, list(range(3 * 24)))
    drawn = np.asarray(draw_overlay(image, on_border, "q", "a"))
    height = 900 * 480 // 640
    inner = drawn[4 : height - 4, 4:-4]
    tile_line = np.abs(inner.astype(int) - inner.mean(axis=-1, keepdims=True)).max(axis=-1) > 4
    # Only the two lines between the tiles have colour.
    assert tile_line.mean() < 0.02
    first_row = selection_of(480, 640, list(range(3 * 24, 4 * 24)))
    drawn = np.asarray(draw_overlay(image, first_row, "q", "a"))
    assert not is_grey(drawn[10, 100])
    assert is_grey(drawn[100, 100])


def test_higher_scores_are_redder():
    selection = selection_of(1008, 672, list(range(36 * 24)))
    drawn = np.asarray(draw_overlay(Image.new("RGB", (672, 1008), "white"), selection, "q", "a")).astype(int)
    first, last = drawn[14, 14], drawn[35 * 28 + 14, 23 * 28 + 14]
    assert first[1] > last[1] + 60


@pytest.mark.parametrize("size", [(1, 1), (30_000, 200), (200, 9_000), (4_000, 3_000)])
@pytest.mark.parametrize("scores", [True, False])
def test_any_size_is_legible(size, scores):
    width, height = size
    drawn = draw_overlay(Image.new("RGB", size, "navy"), selection_of(height, width, [0, 5], scores), "q", "a")
    assert 300 <= max(drawn.size) <= 2400
    assert min(drawn.size) >= 96


def test_long_and_foreign_captions_do_not_fail():
    selection = selection_of(400, 400, [1])
    image = Image.new("RGB", (400, 400))
    plain = draw_overlay(image, selection, "q", "a")
    long = draw_overlay(image, selection, "word " * 400, "x" * 3000 + " žлш中文\n\n")
    assert plain.width == long.width
    assert plain.height < long.height < plain.height + 600
    assert draw_overlay(image, selection, "", "").width == plain.width


def test_global_view_only_draws_the_picture_alone():
    empty = LocalSelection(choose_grid(900, 900), 0, np.zeros(0, bool))
    drawn = np.asarray(draw_overlay(Image.new("RGB", (900, 900), "white"), empty, "q", "a"))
    assert (drawn[:900] == 255).all()


def test_wrong_number_of_tokens_is_refused():
    selection = LocalSelection(choose_grid(900, 900), SIDE, np.ones(5, bool))
    with pytest.raises(ValueError, match=r"kept has shape \(5,\), expected"):
        draw_overlay(Image.new("RGB", (900, 900)), selection, "q", "a")
