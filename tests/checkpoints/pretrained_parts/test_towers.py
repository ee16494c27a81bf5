from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    DeiTConfig,
    Dinov2WithRegistersConfig,
    Siglip2VisionConfig,
    SiglipVisionConfig,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from slime_vlm.errors import ConfigError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.vision_encoder import build_vision_encoder, encode_views, num_prefix_tokens
from slime_vlm.model.vision_families import OTHER, VISION_FAMILIES, family_of
from tests.checkpoints.pretrained_parts.families import LANGUAGE_MODELS, TOWERS

ROOT = Path(__file__).parents[3]
VISION = [name for name in TOWERS if name not in ("resnet", "recogniser")]


def test_every_family_is_tested_and_documented() -> None:
    assert {config.model_type for config, _ in TOWERS.values()} == set(VISION_FAMILIES)
    rows = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    documented = {name for row in rows if row.startswith("| ") for name in re.findall(r"`(\w+)`", row.split("|")[2])}
    assert set(VISION_FAMILIES) <= documented


def test_a_type_without_an_entry_is_tried() -> None:
    assert family_of("vit") is OTHER
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    encoder = build_vision_encoder(DeiTConfig(**size, image_size=28, patch_size=14))
    # The class token and the distillation token.
    assert num_prefix_tokens(encoder) == 2


@pytest.mark.parametrize(
    ("name", "prefix"), [("clip", 1), ("siglip", 0), ("siglip2", 0), ("dinov2", 1), ("dinov2-registers", 5)]
)
@pytest.mark.parametrize("layer", [-1, -2])
def test_patches_follow_what_stands_before_them(name: str, prefix: int, layer: int) -> None:
    """Changing one patch of the view moves the feature at its place most, in every family."""
    torch.manual_seed(0)
    encoder = build_vision_encoder(TOWERS[name][0]).eval()
    assert num_prefix_tokens(encoder) == prefix
    view = torch.zeros(1, 3, 56, 56)
    changed = view.clone()
    changed[:, :, 14:28, 28:42] = torch.randn(1, 3, 14, 14)
    with torch.inference_mode():
        features = encode_views(encoder, torch.cat([view, changed]), layer=layer, num_tokens=16)
    assert features.shape == (2, 16, 16)
    assert int((features[1] - features[0]).norm(dim=-1).argmax()) == 1 * 4 + 2


def test_a_square_number_of_tokens_with_registers() -> None:
    """One class token, four registers and four patches are nine tokens: still four patches."""
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, num_register_tokens=4
    )
    encoder = build_vision_encoder(config).eval()
    views = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        hidden = encoder(pixel_values=views, output_hidden_states=True).hidden_states[-2]
        assert hidden.shape[1] == 9
        torch.testing.assert_close(encode_views(encoder, views, num_tokens=4), hidden[:, 5:])
        with pytest.raises(ConfigError, match="gives 4 tokens a view, expected 9"):
            encode_views(encoder, views, num_tokens=9)


def test_patches_of_siglip_2_are_those_of_its_own_processor() -> None:
    encoder = build_vision_encoder(TOWERS["siglip2"][0]).eval()
    views = torch.randn(2, 3, 56, 56)
    patches = np.stack([convert_image_to_patches(view.numpy(), 14) for view in views])
    with torch.inference_mode():
        expected = encoder(
            pixel_values=torch.tensor(patches),
            pixel_attention_mask=torch.ones(2, 16),
            spatial_shapes=torch.tensor([[4, 4], [4, 4]]),
            output_hidden_states=True,
        )
        torch.testing.assert_close(encode_views(encoder, views, num_tokens=16), expected.hidden_states[-2])


@pytest.mark.parametrize("name", VISION)
def test_views_of_another_size_stretch_the_position_table(name: str) -> None:
    encoder = build_vision_encoder(TOWERS[name][0]).eval()
    with torch.inference_mode():
        assert encode_views(encoder, torch.randn(1, 3, 84, 84), num_tokens=36).shape == (1, 36, 16)


@pytest.mark.parametrize(
    ("vision", "expected"),
    [
        (CLIPVisionConfig(image_size=336, patch_size=14), (336, 14, 576)),
        # 384 is no multiple of 14: the encoder reads 27 patches a side, and so many pixels a view has.
        (SiglipVisionConfig(image_size=384, patch_size=14), (378, 14, 729)),
        (SiglipVisionConfig(image_size=[224, 224], patch_size=16), (224, 16, 196)),
        (Siglip2VisionConfig(patch_size=16, num_patches=256), (256, 16, 256)),
        (Dinov2WithRegistersConfig(image_size=518, patch_size=14), (518, 14, 1369)),
    ],
)
def test_the_views_that_an_encoder_was_made_for(vision, expected: tuple[int, int, int]) -> None:
    config = SlimeConfig(vision_config=vision, text_config=LANGUAGE_MODELS["llama"].to_dict())
    assert (config.view_size, config.patch_size, config.num_global_tokens) == expected


def test_views_of_whole_patches_need_no_stretching() -> None:
    """An encoder for 60 pixels by patches of 14 has 16 places; views of 56 get them as they are."""
    vision = SiglipVisionConfig(**{**TOWERS["siglip"][0].to_dict(), "image_size": 60})
    encoder = build_vision_encoder(vision).eval()
    view = torch.randn(1, 3, 56, 56)
    with torch.inference_mode():
        direct = encoder(pixel_values=view, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(encode_views(encoder, view, num_tokens=16), direct)
