from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slime_vlm.errors import ConfigError
from slime_vlm.model.query_attention import QueryAttention
from slime_vlm.training.architecture import recipe_config
from slime_vlm.training.models import stage_model, start_model
from slime_vlm.training.pages.labels import page_vocabulary
from slime_vlm.training.pages.new_model import start_local_attention
from slime_vlm.training.recipe import ModelSource, load_recipe
from slime_vlm.training.run import train
from tests.training.mini import mini_recipe, write_recipe


def looked_at(attention: QueryAttention, num_inputs: int) -> torch.Tensor:
    """Input that each head of each query looks at most, by positions alone: [heads, Q]."""
    queries = attention.q_proj(attention.norm_query(attention.query) + attention.position_table)
    keys = attention.k_proj(attention.input_positions(num_inputs))
    heads = attention.num_heads
    queries, keys = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (queries, keys))
    return (queries @ keys.transpose(1, 2)).argmax(-1)


def test_every_head_starts_at_its_place() -> None:
    """Queries of an 8 x 8 grid over 16 x 16 features: query (r, c) lies over features 2r, 2r + 1 and 2c, 2c + 1."""
    torch.manual_seed(0)
    attention = QueryAttention(num_queries=64, dim=256, num_heads=8)
    start_local_attention(attention, 256)
    with torch.no_grad():
        place = looked_at(attention, 256)
    rows, cols = place // 16, place % 16
    for r in range(1, 7):
        for c in range(1, 7):
            query = 8 * r + c
            under = [(2 * r, 2 * c), (2 * r, 2 * c + 1), (2 * r + 1, 2 * c), (2 * r + 1, 2 * c + 1)]
            assert [(int(rows[h, query]), int(cols[h, query])) for h in range(4)] == under
            # Two of the others read along the query's own rows, two along its columns.
            assert [int(rows[h, query]) for h in (4, 5)] == [2 * r, 2 * r + 1]
            assert [int(cols[h, query]) for h in (6, 7)] == [2 * c, 2 * c + 1]


def test_equal_grids_start_straight() -> None:
    torch.manual_seed(0)
    attention = QueryAttention(num_queries=64, dim=256, num_heads=8)
    start_local_attention(attention, 64)
    with torch.no_grad():
        place = looked_at(attention, 64)
    inner = torch.tensor([8 * r + c for r in range(1, 7) for c in range(1, 7)])
    assert all((place[h, inner] == inner).all() for h in range(4))


def test_a_model_from_nothing(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, mini_recipe()))
    model, processor = start_model(recipe, {"views": "local"})
    vocabulary = page_vocabulary()
    assert model.config.projector_vocabulary == vocabulary.sizes
    assert model.config.views == "local"
    assert processor.image_token_id == model.config.image_token_id
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    # A word on a page begins as the same word in a question, in both word slots.
    embeddings = model.get_input_embeddings().weight
    word = vocabulary.words[5]
    token = processor.tokenizer(word, add_special_tokens=False).input_ids[-1]
    first = sum(vocabulary.sizes[:-3])
    for slot in (first, first + vocabulary.sizes[-3]):
        entry = model.model.projector.table[slot + vocabulary.word_id(word)]
        assert torch.equal(entry, embeddings[token])
    again, _ = start_model(recipe, {"views": "local"})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_stages_are_put_together_and_frozen_statistics_rest(tmp_path: Path) -> None:
    recipe = mini_recipe()
    for stage in recipe["stages"]:
        stage["steps"] = 2
    recipe["stages"][2] = {
        **recipe["stages"][0],
        "name": "1b",
        "start": ["encoder", "lm"],
        "trains": ["global_adapter"],
    }
    path = write_recipe(tmp_path, recipe)
    train(path, tmp_path / "run")
    folders = {name: tmp_path / "run" / name / "model" for name in ("encoder", "lm", "1b")}
    models = {name: stage_model([folder], {})[0].state_dict() for name, folder in folders.items()}
    start = start_model(load_recipe(path), {})[0].state_dict()
    both = stage_model([folders["encoder"], folders["lm"]], {})[0].state_dict()
    for name in both:
        of_lm = name.startswith(("model.language_model.", "lm_head.", "model.page_positions.", "model.projector.table"))
        assert torch.equal(both[name], models["lm" if of_lm else "encoder"][name]), name
    statistics = [name for name in both if name.endswith(("running_mean", "running_var"))]
    assert statistics
    assert any(not torch.equal(start[name], models["encoder"][name]) for name in statistics)
    # Stage lm trains no encoder and starts anew; stage 1b starts from the encoder of stage encoder.
    assert all(torch.equal(start[name], models["lm"][name]) for name in statistics)
    assert all(torch.equal(models["encoder"][name], models["1b"][name]) for name in statistics)
    moved = {name for name in both if not torch.equal(both[name], models["1b"][name])}
    assert moved
    assert all(name.startswith("model.global_adapter.query_attention.") for name in moved)


def test_a_source_that_is_none(tmp_path: Path) -> None:
    recipe = mini_recipe()
    del recipe["model"]["tokenizer"]
    with pytest.raises(ConfigError, match="expected 'path', 'vision' and 'llm', or 'tokenizer: pages'"):
        start_model(load_recipe(write_recipe(tmp_path, recipe)), {})


def test_a_checkpoint_as_source(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, mini_recipe()))
    model, processor = start_model(recipe, {})
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    object.__setattr__(recipe, "model", ModelSource(path=str(tmp_path / "model"), config={"max_tiles": 5}))
    assert recipe_config(recipe, {"views": "global"}).max_tiles == 5
    loaded, _ = start_model(recipe, {"views": "global"})
    assert (loaded.config.max_tiles, loaded.config.views) == (5, "global")
