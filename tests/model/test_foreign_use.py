"""Ways in which code that does not know SliME uses it: embeddings, offloaded weights, attention implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, ResNetConfig

import slime_vlm
from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from tests.conftest import pad_batch, prompt_ids, tiny_config, tiny_model

NANO = Path(slime_vlm.__file__).parent / "checkpoints" / "nano"
GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}


def batch(model: SlimeForConditionalGeneration) -> dict[str, Tensor]:
    """Two rows of unequal length, padded on the left, an image in each."""
    rows = [
        prompt_ids(model.config, [1, 5], (1, 2), [7, 8]),
        prompt_ids(model.config, [1, 9, 10, 11], (2, 1), [12, 4, 6, 13]),
    ]
    generator = torch.Generator().manual_seed(1)
    return {
        **pad_batch(rows, side="left"),
        "pixel_values": torch.randn(6, 3, 56, 56, generator=generator),
        "image_grids": torch.tensor([[1, 2], [2, 1]]),
    }


def test_generation_from_embeddings_of_text_and_images() -> None:
    model = tiny_model(selector_top_p=1.0)
    inputs = batch(model)
    expected = model.generate(**inputs, **GREEDY)[:, -4:]
    features = model.get_image_features(inputs["pixel_values"], inputs["image_grids"]).pooler_output
    embeddings, placeholders = model.model.embed_text(inputs["input_ids"])
    embeddings = embeddings.masked_scatter(placeholders[..., None], torch.cat(features))
    for use_cache in (True, False):
        found = model.generate(
            inputs_embeds=embeddings, attention_mask=inputs["attention_mask"], use_cache=use_cache, **GREEDY
        )
        assert torch.equal(found, expected)


def test_images_beside_embeddings_are_refused() -> None:
    model = tiny_model()
    inputs = batch(model)
    embeddings = model.get_input_embeddings()(inputs.pop("input_ids").clamp(max=59))
    with pytest.raises(InputError, match="images came without input_ids"):
        model.generate(inputs_embeds=embeddings, **inputs, **GREEDY)


def test_data_parallel_is_refused() -> None:
    model = tiny_model()
    # nn.DataParallel runs replicas, which it makes on GPUs alone.
    replica = model._replicate_for_data_parallel()
    with pytest.raises(InputError, match="start one process per GPU"):
        replica(**batch(model))


@pytest.mark.parametrize("offloaded", ["everything", "vision encoder", "language model", "by size"])
def test_weights_offloaded_to_the_disk(tmp_path: Path, offloaded: str) -> None:
    # As in nano, local tokens carry their position on the page.
    model = tiny_model(page_positions=True)
    inputs = batch(model)
    expected = model.generate(**inputs, **GREEDY)
    model.save_pretrained(tmp_path / "model")
    parts = [f"model.{name}" for name, _ in model.model.named_children()] + ["lm_head"]
    on_disk = {"vision encoder": ["model.vision_tower"], "language model": ["model.language_model", "lm_head"]}
    device_map: Any = {part: "disk" if part in on_disk.get(offloaded, ()) else "cpu" for part in parts}
    options: dict[str, Any] = {"device_map": device_map}
    if offloaded == "everything":
        options = {"device_map": {"": "disk"}}
    elif offloaded == "by size":
        options = {"device_map": "auto", "max_memory": {"cpu": "100KB"}}
    loaded = SlimeForConditionalGeneration.from_pretrained(
        tmp_path / "model", offload_folder=str(tmp_path / "offload"), **options
    ).eval()
    assert any(parameter.is_meta for parameter in loaded.parameters())
    assert loaded.device.type == "cpu"
    assert torch.equal(loaded.generate(**inputs, **GREEDY), expected)


def test_a_frozen_encoder_does_not_change_in_training() -> None:
    model, _ = slime_vlm.load("nano", device="cpu")
    views = torch.randn(1, 3, model.config.view_size, model.config.view_size)
    expected = model.model.encode_views(views)
    model.model.vision_tower.requires_grad_(False)
    model.train()
    assert torch.equal(model.model.encode_views(views), expected)
    assert model.model.language_model.training
    model.model.vision_tower.requires_grad_(True)
    model.train()
    assert model.model.vision_tower.training


def test_attention_is_chosen_where_it_exists() -> None:
    # The vision encoder of nano has no attention at all.
    model = AutoModelForImageTextToText.from_pretrained(NANO, attn_implementation="sdpa")
    assert model.config.text_config._attn_implementation == "sdpa"
    loaded = slime_vlm.load("nano", device="cpu", attn_implementation="eager")[0]
    assert loaded.config.text_config._attn_implementation == "eager"
    with pytest.raises(ConfigError, match="expected one of sdpa, eager"):
        slime_vlm.load("nano", device="cpu", attn_implementation="flex_attention")
    config = tiny_config(
        vision_config=ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
        vision_feature_layer=-1,
        view_size=56,
        patch_size=8,
    )
    built = SlimeForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    assert built.model.language_model.config._attn_implementation == "sdpa"
