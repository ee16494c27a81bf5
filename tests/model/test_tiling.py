from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slime_vlm.errors import InputError
from slime_vlm.media import open_image
from slime_vlm.model.tiling import (
    TileGrid,
    TokenLayout,
    candidate_grids,
    choose_grid,
    finer_grids,
    image_to_tile_order,
    split_into_tiles,
    tile_to_image_order,
)
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor, as_rgb
from slime_vlm.processing.view_cutting import cut_views
from tests.conftest import tiny_model


def test_worked_example() -> None:
    # 640 x 480 has 2.7 tiles' worth of pixels: candidates 2, 3, 4; 2 x 2 loses no pixel and wastes least.
    assert choose_grid(480, 640) == TileGrid(2, 2, 336, scaled_height=504, scaled_width=672, top=84, left=0)


def test_candidates_by_hand() -> None:
    assert candidate_grids(1, 7) == candidate_grids(2, 7) == [(2, 1), (1, 2), (3, 1), (1, 3)]
    assert candidate_grids(99, 7) == [
        *[(5, 1), (1, 5)],
        *[(6, 1), (3, 2), (2, 3), (1, 6)],
        *[(7, 1), (1, 7)],
    ]


@pytest.mark.parametrize("max_tiles", [1, 2, 3, 7, 12, 36])
def test_grid_stays_within_the_limit(max_tiles: int) -> None:
    for height, width in ((1, 1), (30, 5000), (336, 336), (3000, 2000), (4000, 4000)):
        grid = choose_grid(height, width, max_tiles=max_tiles)
        assert grid.num_tiles <= max_tiles
        assert 1 <= grid.scaled_height <= grid.canvas_size[0]
        assert 1 <= grid.scaled_width <= grid.canvas_size[1]
        assert grid.scaled_height == grid.canvas_size[0] or grid.scaled_width == grid.canvas_size[1]


def test_nine_hundred_tiles_by_hand() -> None:
    # 10,000 / 336 = 29.8 either way, so 30 x 30 tiles keep every pixel; the image fills their canvas.
    assert choose_grid(10_000, 10_000, max_tiles=900) == TileGrid(30, 30, 336, 10_080, 10_080, top=0, left=0)
    # 5,000 / 336 = 14.9 and 20,000 / 336 = 59.5: 15 x 60 tiles.
    grid = choose_grid(5_000, 20_000, max_tiles=900)
    assert (grid.rows, grid.cols) == (15, 60)
    assert [row_and_cols[1] for row_and_cols in finer_grids(1_000, 2_000, 336, 12)] == [2, 4, 4]


@pytest.mark.parametrize(("height", "width"), [(1, 1_000_000), (1_000_000, 1), (30, 50_000), (400, 90_000)])
def test_narrow_images_get_narrow_grids(height: int, width: int) -> None:
    grid = choose_grid(height, width, max_tiles=900)
    assert grid.num_tiles <= 900
    assert (grid.rows > grid.cols) == (height > width)
    assert grid.scaled_height == grid.canvas_size[0] or grid.scaled_width == grid.canvas_size[1]


@pytest.mark.parametrize("max_tiles", [8, 12, 36, 100])
def test_finer_grids_hold_the_best_of_all(max_tiles: int) -> None:
    generator = np.random.default_rng(0)
    for height, width in np.exp(generator.uniform(np.log(40), np.log(9000), size=(60, 2))).astype(int).tolist():
        if math.ceil(height * width / 336**2) <= 6:
            assert choose_grid(height, width, max_tiles=max_tiles) == choose_grid(height, width)
            continue
        grid = choose_grid(height, width, max_tiles=max_tiles)
        most = (math.ceil(height / 336), math.ceil(width / 336))
        every = [(r, c) for r in range(1, most[0] + 1) for c in range(1, most[1] + 1) if r * c <= max_tiles]
        scales = [min(c * 336 / width, r * 336 / height, 1.0) for r, c in every]
        chosen = min(grid.cols * 336 / width, grid.rows * 336 / height, 1.0)
        assert chosen == pytest.approx(max(scales), rel=1e-3)
        fewest = min(r * c for (r, c), scale in zip(every, scales, strict=True) if scale >= chosen * (1 - 1e-9))
        assert grid.num_tiles == fewest


def test_nine_hundred_tiles_are_few_candidates() -> None:
    # One grid for each number of rows: choosing stays a matter of milliseconds.
    assert len(finer_grids(20_000, 30_000, 336, 900)) == 60


def test_transposed_image_gets_transposed_canvas() -> None:
    generator = np.random.default_rng(0)
    for height, width in generator.integers(20, 3000, size=(200, 2)).tolist():
        grid, turned = choose_grid(height, width), choose_grid(width, height)
        if grid.rows != grid.cols:  # ties between a grid and its transpose may go either way
            assert {grid.rows, grid.cols} == {turned.rows, turned.cols}


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_empty_image_is_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="expected at least 1 x 1"):
        choose_grid(*size)


def test_max_tiles_below_one_is_an_error() -> None:
    with pytest.raises(InputError, match="max_tiles is 0"):
        choose_grid(10, 10, max_tiles=0)


def test_token_layout_by_hand() -> None:
    layout = TokenLayout(num_global_tokens=576, num_tile_tokens=144, num_separators=1)
    assert layout.num_image_tokens(2, 2) == 576 + 1 + 4 * 144
    assert layout.num_local_tokens(1, 7) == 1008
    assert layout.tile_side == 12


def test_views_by_hand() -> None:
    # An image of 8 x 16, left half white: with views of 8 pixels it fills one row of two tiles.
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8] = 255
    processor = SlimeImageProcessor(view_size=8, max_tiles=2, image_mean=[0.0] * 3, image_std=[1.0] * 3, resample=0)
    out = processor(Image.fromarray(pixels), return_tensors="pt")
    assert out["image_grids"].tolist() == [[1, 2]]
    views = out["pixel_values"]
    assert views.shape == (3, 3, 8, 8)
    assert views[0, :, :, :4].eq(1).all()
    assert views[0, :, :, 4:].eq(0).all()
    assert views[1].eq(1).all()
    assert views[2].eq(0).all()


def test_views_with_a_margin_by_hand() -> None:
    """Tiles of 4 pixels and views of 6: each shows one pixel of its neighbours, and black beyond the canvas."""
    pixels = np.arange(1, 33, dtype=np.uint8).reshape(4, 8)
    grid = choose_grid(4, 8, view_size=6, max_tiles=2, margin=1)
    assert grid == TileGrid(1, 2, 6, scaled_height=4, scaled_width=8, top=0, left=0, margin=1)
    assert grid.tile_size == 4
    assert grid.canvas_size == (4, 8)
    left, right = cut_views(Image.fromarray(pixels).convert("RGB"), grid, Image.Resampling.NEAREST, "local")
    assert left[0].max() == right[5].max() == 0
    assert left[1, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert right[2, :, 0].tolist() == [12, 13, 14, 15, 16, 0]


@pytest.mark.parametrize("margin", [-1, 3])
def test_a_margin_that_leaves_no_tile_is_an_error(margin: int) -> None:
    with pytest.raises(InputError, match=f"margin is {margin}, expected at least 0 and less than half of the view's 6"):
        choose_grid(4, 8, view_size=6, margin=margin)


def test_border_is_black_before_normalisation() -> None:
    out = SlimeImageProcessor(view_size=8)(Image.new("RGB", (8, 2), "white"), return_tensors="pt")
    grid = choose_grid(2, 8, 8)
    assert grid.top > 0
    black = -torch.tensor(SlimeImageProcessor.image_mean) / torch.tensor(SlimeImageProcessor.image_std)
    torch.testing.assert_close(out["pixel_values"][1, :, 0, 0], black)


def test_images_of_a_batch_are_those_one_by_one() -> None:
    processor = SlimeImageProcessor(view_size=28)
    images = [Image.effect_noise(size, 90).convert("RGB") for size in ((30, 20), (90, 25), (10, 100))]
    batch = processor(images, return_tensors="pt")
    single = [processor(image, return_tensors="pt") for image in images]
    assert torch.equal(batch["pixel_values"], torch.cat([out["pixel_values"] for out in single]))
    assert torch.equal(batch["image_grids"], torch.cat([out["image_grids"] for out in single]))


def test_image_types_agree() -> None:
    image = Image.effect_noise((30, 20), 90).convert("RGB")
    array = np.asarray(image)
    for other in (array, array.transpose(2, 0, 1), torch.from_numpy(array.copy()), array / 255.0):
        assert as_rgb(other).tobytes() == image.tobytes()
    assert as_rgb(array[..., 0]).mode == "RGB"
    # A page may take 600 MB: what is RGB already is not copied.
    assert as_rgb(image) is image
    with pytest.raises(InputError, match="shape"):
        as_rgb(np.zeros(3))


def test_images_given_in_memory_are_treated_as_opened_files(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    deep = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    for name, image in (("clear.png", clear), ("deep.png", Image.fromarray(deep))):
        image.save(tmp_path / name)
        assert as_rgb(image).tobytes() == open_image(tmp_path / name).tobytes()
    assert as_rgb(np.asarray(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert as_rgb(deep).tobytes() == as_rgb(Image.fromarray(deep)).tobytes()
    assert as_rgb(deep).getextrema() == ((0, 255),) * 3
    with pytest.raises(InputError, match="scale it first"):
        as_rgb(np.full((4, 4, 3), 300))


def test_processor_survives_saving(tmp_path: object) -> None:
    processor = SlimeImageProcessor(view_size=56, max_tiles=3)
    processor.save_pretrained(tmp_path)
    again = SlimeImageProcessor.from_pretrained(tmp_path)
    assert (again.view_size, again.max_tiles) == (56, 3)
    image = Image.effect_noise((300, 80), 90)
    out, expected = again(image, return_tensors="pt"), processor(image, return_tensors="pt")
    assert torch.equal(out["pixel_values"], expected["pixel_values"])


def test_no_image_is_an_error() -> None:
    with pytest.raises(InputError, match="no image"):
        SlimeImageProcessor()([])


def sizes() -> list[tuple[int, int]]:
    """(height, width) of 300 images of every shape."""
    generator = np.random.default_rng(1)
    return [(int(height), int(width)) for height, width in generator.integers(1, 400, size=(300, 2))]


def test_processor_cuts_as_predicted() -> None:
    processor = SlimeImageProcessor(view_size=14)
    images = [Image.new("L", (width, height)) for height, width in sizes()]
    grids = [choose_grid(height, width, 14) for height, width in sizes()]
    out = processor(images, return_tensors="pt")
    assert out["image_grids"].tolist() == [[grid.rows, grid.cols] for grid in grids]
    assert len(out["pixel_values"]) == sum(grid.num_views for grid in grids)


@pytest.mark.parametrize("views", ["both", "global", "local"])
@pytest.mark.parametrize("local_compression", [True, False])
def test_predicted_counts_are_the_features_produced(views: str, local_compression: bool) -> None:
    model = tiny_model(views=views, local_compression=local_compression)
    grids = sorted({(g.rows, g.cols) for g in (choose_grid(height, width, 56) for height, width in sizes())})
    assert len(grids) > 10
    pixels = torch.zeros(sum(1 + rows * cols for rows, cols in grids), 3, 56, 56)
    with torch.no_grad():
        features = model.get_image_features(pixels, torch.tensor(grids)).pooler_output
    layout = model.config.token_layout
    assert [len(part) for part in features] == [layout.num_image_tokens(*grid) for grid in grids]


def test_orders_by_hand() -> None:
    # Two tiles side by side of 2 x 2 tokens each. In image order the first row is 0 1 | 2 3, the second 4 5 | 6 7.
    tokens = np.arange(8)
    tiles = image_to_tile_order(tokens, rows=1, cols=2)
    assert tiles.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert tile_to_image_order(tiles, rows=1, cols=2).tolist() == tokens.tolist()
    assert split_into_tiles(tokens, rows=1, cols=2)[0, 1].tolist() == [[2, 3], [6, 7]]


@pytest.mark.parametrize(("rows", "cols", "side"), [(1, 1, 3), (2, 3, 2), (3, 1, 4), (1, 7, 3)])
def test_orders_are_inverse_in_numpy_and_torch(rows: int, cols: int, side: int) -> None:
    values = np.random.default_rng(0).integers(0, 99, (rows * cols * side**2, 5))
    tiles = image_to_tile_order(values, rows, cols)
    assert tiles.shape == (rows * cols, side**2, 5)
    assert (tile_to_image_order(tiles, rows, cols) == values).all()
    assert torch.equal(image_to_tile_order(torch.from_numpy(values), rows, cols), torch.from_numpy(tiles))
    assert torch.equal(tile_to_image_order(torch.from_numpy(tiles), rows, cols), torch.from_numpy(values))


def test_splitting_a_contiguous_map_copies_nothing() -> None:
    tokens = torch.zeros(24, 3)
    split_into_tiles(tokens, rows=2, cols=3)[1, 2] = 1.0
    assert tokens.sum() == 4 * 3
