"""Frames of a video: the mean of their features is the global view, each of them is a tile."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from slime_vlm.errors import InputError
from slime_vlm.inference import answering
from slime_vlm.media import Clip
from slime_vlm.model.tiling import frame_grid
from tests.conftest import tiny_model
from tests.tiny_reader import tiny_reader


def frames(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(count)
    return [Image.fromarray(generator.integers(0, 255, (30, 40, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(("count", "grid"), [(8, (4, 2)), (10, (5, 2)), (2, (1, 2)), (1, (1, 1)), (7, (7, 1))])
def test_the_layout_of_frames(count, grid):
    found = frame_grid(count, 56)
    assert (found.rows, found.cols) == grid
    assert (found.scaled_height, found.scaled_width) == found.canvas_size


def test_no_frames():
    with pytest.raises(InputError, match="at least 1"):
        frame_grid(0)
    with pytest.raises(InputError, match=r"got 3 frames, expected 2 x 2"):
        tiny_model().model.encode_frames(torch.zeros(3, 3, 56, 56), (2, 2))


@torch.no_grad()
def test_global_view_and_tiles_by_hand():
    model = tiny_model().model
    views = torch.randn(8, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    found = model.encode_frames(views, (4, 2))
    features = torch.cat([model.encode_views(view[None]) for view in views])
    tokens, gates = model.adapt_global(sum(features)[None] / 8)
    torch.testing.assert_close(found.global_tokens, tokens[0])
    torch.testing.assert_close(found.gates, gates[0])
    # 2 x 2 tokens a frame, two frames to a row: the first row of the map is the upper row of frames 0 and 1.
    tiles = [model.compress_tiles(feature[None])[0] for feature in features]
    torch.testing.assert_close(found.local_tokens[:4], torch.cat([tiles[0][:2], tiles[1][:2]]))
    torch.testing.assert_close(found.local_tokens[-2:], tiles[7][2:])


@torch.no_grad()
def test_a_still_video_has_the_global_view_of_its_image():
    model = tiny_model().model
    view = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    found = model.encode_frames(view.expand(8, -1, -1, -1), (4, 2))
    image = model.encode_image(view.expand(9, -1, -1, -1), (4, 2))
    torch.testing.assert_close(found.global_tokens, image.global_tokens)
    torch.testing.assert_close(found.local_tokens, image.local_tokens)


@torch.no_grad()
@pytest.mark.parametrize("views", ["global", "local"])
def test_one_kind_of_view_alone(views):
    found = tiny_model(views=views).model.encode_frames(torch.randn(2, 3, 56, 56), (1, 2))
    assert (found.global_tokens is None) == (views == "local")
    assert (found.local_tokens is None) == (views == "global")


def test_questions_about_a_clip():
    model, processor = tiny_reader()
    clip = Clip(frames(8), [float(second) for second in range(8)])
    first, second = answering.ask(model, processor, clip, ["what is it?", "where is it?"], max_new_tokens=3)
    assert (first.grid.rows, first.grid.cols) == (4, 2)
    assert first.num_local == second.num_local == 8 * processor.token_layout.num_tile_tokens
    drawing = first.draw(clip)
    assert min(drawing.size) > 300
