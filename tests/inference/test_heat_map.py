"""The heat map lies where the tokens are, at any image size, and its caption holds any text."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slime_vlm.inference.fonts import font_for
from slime_vlm.inference.heat_map import LocalSelection, draw_overlay, drawing_copy, paint_selection, plot_selection
from slime_vlm.inference.side_panel import wrapped
from slime_vlm.model.tiling import choose_grid

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
    drawn = np.asarray(paint_selection(image, selection))
    for y in range(36):
        for x in range(24):
            assert is_grey(drawn[y * 28 + 14, x * 28 + 14]) == ((y, x) != (row, col)), (y, x)


def test_black_border_of_the_canvas_is_no_part_of_the_image():
    # 480 x 640 becomes 504 x 672 on a 672 x 672 canvas, 84 rows down: exactly three rows of tokens lie on the border.
    image = Image.new("RGB", (1280, 960), "white")
    image = image.resize((640, 480))
    on_border = selection_of(480, 640, list(range(3 * 24)))
    inner = np.asarray(paint_selection(image, on_border))[4:-4, 4:-4]
    tile_line = np.abs(inner.astype(int) - inner.mean(axis=-1, keepdims=True)).max(axis=-1) > 4
    # Only the two lines between the tiles have colour.
    assert tile_line.mean() < 0.02
    first_row = selection_of(480, 640, list(range(3 * 24, 4 * 24)))
    drawn = np.asarray(paint_selection(image, first_row))
    assert not is_grey(drawn[10, 100])
    assert is_grey(drawn[100, 100])


def test_higher_scores_are_redder():
    selection = selection_of(1008, 672, list(range(36 * 24)))
    drawn = np.asarray(paint_selection(Image.new("RGB", (672, 1008), "white"), selection)).astype(int)
    first, last = drawn[14, 14], drawn[35 * 28 + 14, 23 * 28 + 14]
    assert first[1] > last[1] + 60


@pytest.mark.parametrize("size", [(1, 1), (30_000, 200), (200, 9_000), (4_000, 3_000)])
@pytest.mark.parametrize("scores", [True, False])
def test_any_size_is_legible(size, scores):
    width, height = size
    drawn = draw_overlay(Image.new("RGB", size, "navy"), selection_of(height, width, [0, 5], scores), "q", "a")
    assert 300 <= max(drawn.size) <= 2400
    assert min(drawn.size) >= 96


def ink_box(drawn: Image.Image) -> tuple[int, int, int, int]:
    """Box around everything that is not paper."""
    pixels = np.asarray(drawn).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - pixels[0, 0]).max(axis=-1) > 8)
    return columns.min(), rows.min(), columns.max(), rows.max()


@pytest.mark.parametrize("size", [(400, 400), (300, 2000), (2000, 300), (9000, 90)])
@pytest.mark.parametrize("answer", ["", "word " * 400, "1. one\n\n\n2. žлш中文 €\n" + "x" * 3000])
def test_nothing_is_cut_off(size, answer):
    width, height = size
    selection = selection_of(height, width, [1, 2, 3])
    image = Image.new("RGB", size, "navy")
    drawn = draw_overlay(image, selection, "why? " * 50, answer, title="a.png", by="what was asked first", num_global=9)
    left, top, right, bottom = ink_box(drawn)
    assert left >= 10
    assert top >= 10
    assert right <= drawn.width - 10
    assert bottom <= drawn.height - 10
    assert max(drawn.size) <= 3000


def test_words_stand_beside_tall_images_and_below_wide_ones():
    tall, wide = Image.new("RGB", (400, 900), "navy"), Image.new("RGB", (900, 400), "navy")
    beside = draw_overlay(tall, selection_of(900, 400, [0]), "q", "a")
    below = draw_overlay(wide, selection_of(400, 900, [0]), "q", "a")
    assert beside.width > paint_selection(tall, selection_of(900, 400, [0])).width + 200
    assert below.height > paint_selection(wide, selection_of(400, 900, [0])).height + 100


def test_lines_fit_and_a_cut_text_ends_in_an_ellipsis():
    for text in ("one two three " * 40, "x" * 500, "iiii " * 200):
        lines = wrapped(text, 20, 200, 3)
        assert len(lines) == 3
        assert lines[-1].endswith("…")
        assert max(font_for(20, text).getlength(line) for line in lines) <= 200
    assert wrapped("a\nb c\n\nd", 20, 200, 5) == ["a", "b c", "d"]
    assert wrapped("", 20, 200, 5) == []


def test_a_drawing_copy_is_no_larger_than_a_drawing():
    assert drawing_copy(Image.new("L", (6000, 3000)), choose_grid(3000, 6000)).size == (1800, 900)
    assert drawing_copy(Image.new("RGB", (60, 30)), choose_grid(30, 60)).size == (60, 30)


def test_a_matplotlib_axis_shows_the_image_and_its_scale():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    image = Image.new("RGB", (672, 1008), "white")
    plot_selection(axes, image, selection_of(1008, 672, [3, 4, 5]))
    assert axes.get_title() == "3 of 864 local tokens kept (0%)"
    assert len(figure.axes) == 2
    figure.canvas.draw()
    plot_selection(figure.add_subplot(), image, selection_of(1008, 672, [3], scores=False))
    assert len(figure.axes) == 3


def test_global_view_only_draws_the_image_alone():
    empty = LocalSelection(choose_grid(900, 900), 0, np.zeros(0, bool))
    image = Image.new("RGB", (900, 900), "white")
    assert (np.asarray(paint_selection(image, empty)) == 255).all()
    assert draw_overlay(image, empty, "q", "a").width > 900


def test_wrong_number_of_tokens_is_refused():
    selection = LocalSelection(choose_grid(900, 900), SIDE, np.ones(5, bool))
    with pytest.raises(ValueError, match=r"kept has shape \(5,\), expected"):
        draw_overlay(Image.new("RGB", (900, 900)), selection, "q", "a")
