"""An image that comes in chunks: the same pixels and tokens as at once, and never many views alive."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.inference import answering
from slime_vlm.model.local_compressor import TileMap, stitch_tiles
from slime_vlm.model.tiling import choose_grid, fit_to_grid
from slime_vlm.processing import view_cutting
from slime_vlm.processing.banded_resize import RowBands
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from slime_vlm.processing.view_cutting import cut_views
from tests.conftest import tiny_model
from tests.tiny_reader import tiny_reader


def noise(height: int, width: int) -> Image.Image:
    """Black and white noise: every overshoot of the filter is cut off, so that the order of passes shows."""
    bits = np.random.default_rng(height * width).integers(0, 2, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(bits * 255)


@pytest.mark.parametrize("seed", range(4))
def test_bands_are_the_pixels_of_pillow(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(25):
        height, width = np.exp(generator.uniform(np.log(2), np.log(300), 2)).astype(int).tolist()
        grid = fit_to_grid(height, width, *generator.integers(1, 6, 2).tolist(), 28)
        image = noise(height, width)
        whole = np.asarray(image.resize((grid.scaled_width, grid.scaled_height), Image.Resampling.BICUBIC))
        bands = RowBands(image, grid.scaled_height, grid.scaled_width)
        step = int(generator.integers(1, 40))
        starts = range(0, grid.scaled_height, step)
        rows = [bands.rows(start, min(start + step, grid.scaled_height)) for start in starts]
        assert np.array_equal(np.concatenate(rows), whole), (height, width, grid)


@pytest.mark.parametrize("size", [(300, 280), (90, 700), (600, 70), (401, 399)])
@pytest.mark.parametrize("views", ["both", "global", "local"])
def test_streamed_pixels_are_those_of_a_call(size: tuple[int, int], views: str, monkeypatch) -> None:
    processor = SlimeImageProcessor(view_size=28, max_tiles=150)
    whole = processor(noise(*size), return_tensors="pt")["pixel_values"]
    wanted = {"both": whole, "global": whole[:1], "local": whole[1:]}[views]
    for limit in (0, view_cutting.WHOLE_PIXELS):
        monkeypatch.setattr(view_cutting, "WHOLE_PIXELS", limit)
        chunks = list(processor.stream_views(noise(*size), 8, views))
        assert max(len(chunk) for chunk in chunks) <= 8
        assert torch.equal(torch.cat(chunks), wanted)


def test_other_filters_are_left_to_pillow(monkeypatch) -> None:
    monkeypatch.setattr(view_cutting, "WHOLE_PIXELS", 0)
    image, grid = noise(90, 80), choose_grid(90, 80, 28)
    first_tile = list(cut_views(image, grid, Image.Resampling.BILINEAR))[1]
    scaled = image.resize((grid.scaled_width, grid.scaled_height), Image.Resampling.BILINEAR)
    rows = min(28 - grid.top, 28)
    assert np.array_equal(first_tile[grid.top :, grid.left :], np.asarray(scaled)[:rows, : 28 - grid.left])


def soft(height: int, width: int) -> Image.Image:
    """Colours that change slowly, as in photographs."""
    coarse = np.random.default_rng(height).integers(
        0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("size", "make_image"),
    [((900, 1400), soft), ((60, 4000), soft), ((1, 1), soft), ((1500, 1490), soft), ((900, 90), noise)],
)
def test_torch_scales_to_the_same_image(size: tuple[int, int], make_image: Callable[[int, int], Image.Image]) -> None:
    exact = SlimeImageProcessor(view_size=56)(make_image(*size), return_tensors="pt")
    quick = SlimeImageProcessor(view_size=56, resize_backend="torch")
    found = quick(make_image(*size), return_tensors="pt")
    assert torch.equal(found["image_grids"], exact["image_grids"])
    levels = (
        (found["pixel_values"] - exact["pixel_values"]) * torch.tensor(quick.image_std)[:, None, None] * 255
    ).abs()
    # One grey level on isolated values.
    assert levels.max() < 1.01
    assert (levels > 0.5).float().mean() < 0.01
    assert torch.equal(torch.cat(list(quick.stream_views(make_image(*size), 3))), found["pixel_values"])


def test_the_resize_backend_is_checked_and_saved(tmp_path) -> None:
    with pytest.raises(ConfigError, match="resize_backend is 'pil', expected 'pillow' or 'torch'"):
        SlimeImageProcessor(view_size=28, resize_backend="pil")(noise(40, 40))
    for backend in ("pillow", "torch"):
        processor = SlimeImageProcessor(view_size=28, resize_backend=backend)
        processor.resample = {}
        with pytest.raises(ConfigError, match=r"resample is \{\}, expected one of Pillow's filters: 0 \(nearest\)"):
            next(processor.stream_views(noise(40, 40), 1))
    with pytest.raises(ConfigError, match="no filter 1"):
        SlimeImageProcessor(view_size=28, resize_backend="torch", resample=Image.Resampling.LANCZOS)(noise(40, 40))
    SlimeImageProcessor(resize_backend="torch").save_pretrained(tmp_path)
    assert SlimeImageProcessor.from_pretrained(tmp_path).resize_backend == "torch"


@pytest.mark.parametrize("order", ["spatial", "flat"])
def test_tiles_one_by_one_make_the_same_map(order: str) -> None:
    tokens = torch.randn(6, 4, 3)
    tiles = TileMap(2, 3, order)
    for chunk in tokens.split(4):
        tiles.add(chunk)
    assert torch.equal(tiles.tokens(), stitch_tiles(tokens, 2, 3, order))
    with pytest.raises(InputError, match="got 0 tiles, expected 2 x 3"):
        TileMap(2, 3).tokens()


@pytest.mark.parametrize("size", [(56, 56), (120, 700), (640, 500), (600, 640)])
@pytest.mark.parametrize(
    "overrides",
    [{}, {"local_merge": "flat"}, {"views": "local"}, {"views": "global"}, {"local_compression": False}],
    ids=str,
)
def test_streamed_tokens_are_those_of_the_whole(size: tuple[int, int], overrides: dict[str, object]) -> None:
    model = tiny_model(max_tiles=150, **overrides)
    processor = SlimeImageProcessor(view_size=56, max_tiles=150)
    out = processor(noise(*size), return_tensors="pt")
    grid = tuple(out["image_grids"][0].tolist())
    with torch.inference_mode():
        whole = model.encode_image(out["pixel_values"], grid)
        streamed = model.encode_stream(
            processor.stream_views(noise(*size), model.config.views_per_chunk, model.config.views), grid
        )
    for name in ("gates", "global_tokens", "local_tokens"):
        expected, found = getattr(whole, name), getattr(streamed, name)
        assert (expected is None) == (found is None), name
        assert expected is None or torch.equal(expected, found), name


def test_few_views_are_alive_at_a_time() -> None:
    model, processor = tiny_reader(max_tiles=200, max_local_tokens=9, views_per_chunk=5)
    sizes: list[int] = []
    model.model.vision_tower.register_forward_pre_hook(
        lambda _module, _args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    answer = answering.ask(model, processor, noise(500, 620), "What is the total?", max_new_tokens=1)[0]
    assert answer.grid.num_tiles > 50
    assert sum(sizes) == answer.grid.num_views
    # On a CPU even fewer than the config allows.
    assert max(sizes) == 1
    assert answer.num_kept == 9


@pytest.mark.parametrize("number", [2, 4])
def test_a_wrong_number_of_views_is_an_error(number: int) -> None:
    with pytest.raises(InputError, match=rf"got {number} views, expected 3"):
        tiny_model().encode_stream([torch.zeros(1, 3, 56, 56)] * number, (2, 1))
