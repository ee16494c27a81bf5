"""Views with margins, pooled global views and patches without a projection, in the ordinary classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import slime_vlm
from slime_vlm.errors import ConfigError, InputError
from slime_vlm.inference.answering import ask, encode
from slime_vlm.model.configuration_recogniser import RecogniserConfig
from slime_vlm.model.global_adapters import pool_features
from slime_vlm.model.recogniser_encoder import RecogniserEncoder, fold_patches, unfold_patches
from slime_vlm.model.tiling import choose_grid
from tests.conftest import tiny_config
from tests.tiny_reader import save_tiny_reader, tiny_reader


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8))


def test_margins_reach_the_processor_and_stay_saved(tmp_path: Path) -> None:
    plain = tiny_reader()[1].image_processor
    margin = plain.view_size // 7
    save_tiny_reader(tmp_path, tile_margin=margin)
    model, processor = slime_vlm.load(tmp_path, device="cpu")
    images = processor.image_processor
    assert (model.config.tile_margin, images.tile_margin) == (margin, margin)
    grid = choose_grid(90, 150, images.view_size, images.max_tiles, margin)
    assert grid == images.grid(90, 150)
    assert grid != plain.grid(90, 150)
    batch = images(images=picture(), return_tensors="pt")
    assert batch["image_grids"].tolist() == [[grid.rows, grid.cols]]
    assert torch.equal(torch.cat(list(images.stream_views(picture(), 3))), batch["pixel_values"])
    # A tile shows what the tile to its right begins with.
    tiles = batch["pixel_values"][1:].unflatten(0, (grid.rows, grid.cols))
    assert torch.equal(tiles[0, 0, :, :, -2 * margin :], tiles[0, 1, :, :, : 2 * margin])
    counted = processor._get_num_multimodal_tokens([(90, 150)])
    assert counted["num_image_patches"] == [grid.num_views]
    (answer,) = ask(model, processor, picture(), "What?", max_new_tokens=2)
    assert answer.grid == grid
    assert encode(model, processor, picture()).tokens.num_local_tokens == answer.num_local
    with pytest.raises(InputError, match="frames"):
        model.encode_frames(torch.zeros(2, 3, images.view_size, images.view_size), (1, 2))


@pytest.mark.parametrize("margin", [-1, 100])
def test_margins_that_leave_nothing_are_refused(margin: int) -> None:
    with pytest.raises(ConfigError, match="tile_margin"):
        tiny_config(tile_margin=margin)


def test_pooling_by_hand() -> None:
    features = torch.arange(16.0).view(1, 16, 1)
    assert pool_features(features, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_features(features, 1) is features


def test_pooling_makes_fewer_global_tokens_and_leaves_tiles_alone() -> None:
    plain, _ = tiny_reader()
    side = plain.config.feature_side
    model, processor = tiny_reader(global_pooling=side)
    assert model.config.token_layout.num_global_tokens == 1
    tokens = encode(model, processor, picture()).tokens
    assert tokens.global_tokens is not None
    assert tokens.global_tokens.shape[0] == 1
    assert tokens.gates is not None
    assert tokens.gates.shape == (1, 2)
    assert ask(model, processor, picture(), "What?", max_new_tokens=2)[0].num_global == 1
    with pytest.raises(ConfigError, match="divisor"):
        tiny_config(global_pooling=side + 1)
    with pytest.raises(ConfigError, match="expected 1"):
        tiny_config(global_pooling=side, local_compression=False, selector="none")


def test_patches_fold_and_unfold() -> None:
    feature_map = torch.arange(2 * 3 * 4 * 8.0).view(2, 3, 4, 8)
    features = fold_patches(feature_map, (1, 2))
    assert features.shape == (2, 16, 6)
    # The second patch of the first row: columns 2 and 3 of all channels.
    assert features[0, 1].tolist() == [*feature_map[0, :, 0, 2].tolist(), *feature_map[0, :, 0, 3].tolist()]
    assert torch.equal(unfold_patches(features, (1, 2)), feature_map)
    square = torch.arange(3 * 8 * 12.0).view(1, 3, 8, 12)
    assert torch.equal(unfold_patches(fold_patches(square, (2, 3)), (2, 3)), square)


def test_an_encoder_without_projection_gives_its_last_map() -> None:
    sizes = {"stem_width": 8, "stage_widths": (8, 16), "stage_depths": (1, 1), "gated_blocks": ((), ())}
    config = RecogniserConfig(**sizes, patch_size=8, hidden_size=32, project_patches=False)
    encoder = RecogniserEncoder(config).eval()
    assert not [name for name in encoder.state_dict() if name.startswith("projection")]
    with torch.inference_mode():
        found = encoder(torch.randn(2, 3, 64, 64), output_hidden_states=True)
    assert found.last_hidden_state.shape == (2, 64, 32)
    torch.testing.assert_close(unfold_patches(found.last_hidden_state, config.map_patch), found.hidden_states[-2])
    with pytest.raises(ConfigError, match="hidden_size is 33"):
        RecogniserConfig(**sizes, patch_size=8, hidden_size=33, project_patches=False)
