"""Every vision encoder with every language model: forward, generate, save and load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.language_model import keep_scores_bounded
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from tests.checkpoints.pretrained_parts.families import LANGUAGE_MODELS, TOWERS, scatter
from tests.conftest import IMAGE_TOKEN, pad_batch, prompt_ids


def pair(tower: str, llm: str, **fields: object) -> SlimeForConditionalGeneration:
    vision, settings = TOWERS[tower]
    config = SlimeConfig(
        vision_config=vision.to_dict(),
        text_config=LANGUAGE_MODELS[llm].to_dict(),
        image_token_id=IMAGE_TOKEN,
        separator_token_id=3,
        num_local_queries=4,
        query_attention_head_dim=8,
        **{**settings, **fields},
    )
    model = SlimeForConditionalGeneration(config).eval()
    scatter(model)
    model.tie_weights()
    return model


def two_rows(model: SlimeForConditionalGeneration) -> tuple[list[list[int]], list[torch.Tensor], list[tuple[int, int]]]:
    """A row with an image of 1 x 2 tiles and a longer one with an image of 2 x 2; their views and grids."""
    grids = [(1, 2), (2, 2)]
    rows = [
        prompt_ids(model.config, [1, 7, 8], grids[0], [9, 10, 11]),
        prompt_ids(model.config, [1], grids[1], [12, 13, 14, 15, 16]),
    ]
    generator = torch.Generator().manual_seed(1)
    side = model.config.view_size
    views = [torch.randn(1 + r * c, 3, side, side, generator=generator) for r, c in grids]
    return rows, views, grids


@pytest.mark.parametrize("llm", LANGUAGE_MODELS)
@pytest.mark.parametrize("tower", TOWERS)
def test_every_pair(tower: str, llm: str, tmp_path: Path) -> None:
    model = pair(tower, llm)
    assert model.config.num_global_tokens == 16
    rows, views, grids = two_rows(model)
    images = {"pixel_values": torch.cat(views), "image_grids": torch.tensor(grids)}
    wanted = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with torch.inference_mode():
        # A batch is its rows one by one, on either side of the padding.
        alone = [
            model(input_ids=torch.tensor([row]), pixel_values=view, image_grids=torch.tensor([grid])).logits[0]
            for row, view, grid in zip(rows, views, grids, strict=True)
        ]
        assert not torch.allclose(alone[0][-1], alone[1][-1], atol=0.01)
        for side in ("left", "right"):
            outputs = model(**pad_batch(rows, side), **images)
            for index, expected in enumerate(alone):
                real = outputs.attention_mask[index].bool()
                torch.testing.assert_close(outputs.logits[index, real], expected, rtol=1e-4, atol=1e-4)

        # Generated tokens too, and the cache changes nothing.
        batch = model.generate(**pad_batch(rows, "left"), **images, **wanted)
        for index, (row, view, grid) in enumerate(zip(rows, views, grids, strict=True)):
            inputs = {"pixel_values": view, "image_grids": torch.tensor([grid])}
            for cached in (True, False):
                single = model.generate(torch.tensor([row]), use_cache=cached, **inputs, **wanted)
                assert single[0, len(row) :].tolist() == batch[index, -4:].tolist()

        model.save_pretrained(tmp_path)
        loaded = SlimeForConditionalGeneration.from_pretrained(tmp_path).eval()
        again = loaded(**pad_batch(rows, "left"), **images)
        torch.testing.assert_close(again.logits, model(**pad_batch(rows, "left"), **images).logits, rtol=0, atol=0)
    assert loaded.config.text_config.model_type == model.config.text_config.model_type


@pytest.mark.parametrize("llm", LANGUAGE_MODELS)
def test_text_alone_is_the_language_model(llm: str, tmp_path: Path) -> None:
    """Logits and loss of text are those of the language model itself, whatever it does before and after its layers."""
    from transformers import AutoModelForCausalLM

    model = pair("clip", llm)
    plain = AutoModelForCausalLM.from_config(LANGUAGE_MODELS[llm]).eval()
    keep_scores_bounded(plain)
    plain.get_decoder().load_state_dict(model.model.language_model.state_dict())
    plain.get_output_embeddings().load_state_dict(model.lm_head.state_dict())
    batch = pad_batch([[1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [1, 20, 21]], "right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with torch.inference_mode():
        expected, found = plain(**batch, labels=labels), model(**batch, labels=labels)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found.logits[real], expected.logits[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)


def test_windows_are_shorter_than_the_rows() -> None:
    """Else the pairs above would not show a window that is off."""
    windows = [config.sliding_window for config in LANGUAGE_MODELS.values() if getattr(config, "sliding_window", None)]
    assert len(windows) == 4
    assert max(windows) < min(len(row) for row in two_rows(pair("clip", "mistral"))[0])


@pytest.mark.parametrize("llm", ["gemma", "gemma2", "gemma3"])
def test_gemma_scales_text_and_leaves_images_alone(llm: str) -> None:
    """Gemma multiplies its token embeddings by sqrt(24): the selector's cosine does not see it, the merge keeps it."""
    model = pair("clip", llm)
    ids = torch.tensor([[5, 6]])
    stored = model.get_input_embeddings().weight[ids]
    torch.testing.assert_close(model.model.embed_text(ids)[0], stored * 24**0.5)
    seen: list[torch.Tensor] = []
    model.model.language_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    layer: list[torch.Tensor] = []
    model.model.language_model.layers[0].register_forward_pre_hook(lambda _module, args: layer.append(args[0]))
    rows, views, grids = two_rows(model)
    with torch.inference_mode():
        features = model.get_image_features(views[0], torch.tensor(grids[:1])).pooler_output[0]
        model(input_ids=torch.tensor(rows[:1]), pixel_values=views[0], image_grids=torch.tensor(grids[:1]))
    # What the projector makes reaches the first layer as it is.
    torch.testing.assert_close(seen[0][0, 3:19], features[:16])
    torch.testing.assert_close(layer[0][0, 3:19], features[:16])


def test_the_bound_of_gemma_2_reaches_the_logits() -> None:
    model = pair("clip", "gemma2")
    unbound = pair("clip", "gemma2")
    unbound.config.text_config.final_logit_softcapping = None
    ids = torch.tensor([[1, 5, 6]])
    with torch.inference_mode():
        raw = unbound(input_ids=ids).logits
        assert raw.abs().max() > 5
        torch.testing.assert_close(model(input_ids=ids).logits, 5 * torch.tanh(raw / 5))
