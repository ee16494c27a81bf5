"""Stored features of the frozen encoder (training/features/cache.py, training/features/precompute.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from slime_vlm.errors import ConfigError, DataError
from slime_vlm.training.features import cache as feature_cache
from slime_vlm.training.features.cache import (
    FeatureStore,
    StoredImage,
    fingerprint_of,
    key_of,
    pixel_values_of,
)
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.run import train
from tests.tiny_reader import tiny_reader
from tests.training.mini import losses, records_recipe, write_recipe


def store_in(
    folder: Path, fingerprint: str = "f", dtype: torch.dtype = torch.float32, gib: float = 1.0
) -> FeatureStore:
    return FeatureStore(folder, fingerprint, {"why": "test"}, dtype, gib * 2**30)


def test_stored_and_read(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    features = torch.randn(3, 4, 5)
    store.add("a", (1, 2), features)
    assert "a" in store
    assert store.get("a") is None, "not written yet"
    store.flush()
    found = store_in(tmp_path).get("a")
    assert found is not None
    assert found.grid == (1, 2)
    assert torch.equal(found.features, features)
    assert store_in(tmp_path, "another").get("a") is None
    half = store_in(tmp_path, "half", torch.bfloat16)
    half.add("a", (1, 2), features)
    half.flush()
    found = half.get("a")
    assert found is not None
    torch.testing.assert_close(found.features.float(), features, atol=0, rtol=2**-8)


def test_what_was_torn_is_not_read(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.add("a", (1, 2), torch.randn(3, 4, 5))
    store.flush()
    (whole,) = store.folder.glob("*.safetensors")
    # A kill leaves a part file, a broken disk a short one.
    (store.folder / "b.part").write_bytes(whole.read_bytes()[:100])
    (store.folder / "c.safetensors").write_bytes(whole.read_bytes()[:-10])
    again = store_in(tmp_path)
    assert len(again) == 1
    assert again.get("a") is not None


def test_no_more_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 1000)
    store = store_in(tmp_path, gib=3000 / 2**30)
    features = torch.zeros(2, 10, 13)
    store.add("a", (1, 1), features)
    store.add("b", (1, 1), features)
    with pytest.raises(ConfigError, match=r"holds .* GiB of features and cache_features\.max_gib is"):
        store.add("c", (1, 1), features)
    assert sum(path.stat().st_size for path in store.folder.glob("*.safetensors")) <= 3000


def test_whatever_changes_has_another_name() -> None:
    model, processor = tiny_reader()
    first = fingerprint_of(model, processor, "float32", False)[0]
    assert fingerprint_of(model, processor, "float32", False)[0] == first
    others = [
        fingerprint_of(model, processor, "bfloat16", False)[0],
        fingerprint_of(model, processor, "float32", True)[0],
    ]
    processor.image_processor.max_tiles = 4
    others.append(fingerprint_of(model, processor, "float32", False)[0])
    processor.image_processor.max_tiles = model.config.max_tiles
    model.config.views = "global"
    others.append(fingerprint_of(model, processor, "float32", False)[0])
    model.config.views = "both"
    with torch.no_grad():
        next(model.model.vision_tower.parameters()).flatten()[0] += 1e-3
    others.append(fingerprint_of(model, processor, "float32", False)[0])
    assert len({first, *others}) == 6


def test_the_model_takes_features_in_place_of_pixels(tmp_path: Path) -> None:
    for views in ("both", "global", "local"):
        model, processor = tiny_reader(views=views)
        pixels = processor.image_processor(
            images=[Image.new("RGB", (150, 60), "red"), Image.new("RGB", (60, 60), "blue")], return_tensors="pt"
        )
        grids = [(int(rows), int(cols)) for rows, cols in pixels["image_grids"]]
        counts = [1 + rows * cols for rows, cols in grids]
        features = model.model.encode_views(pixels["pixel_values"]).split(counts)
        chosen = {"both": slice(None), "global": slice(1), "local": slice(1, None)}[views]
        stored = [StoredImage(grid, part[chosen]) for grid, part in zip(grids, features, strict=True)]
        expected = model.encode_images(pixels["pixel_values"], pixels["image_grids"])
        found = model.encode_images(**pixel_values_of(stored, views))
        for ours, theirs in zip(found, expected, strict=True):
            for name in ("global_tokens", "local_tokens"):
                one, other = getattr(ours, name), getattr(theirs, name)
                assert (one is None) == (other is None)
                if one is not None:
                    torch.testing.assert_close(one, other)


def cached(folder: Path, data: Path, **stage: Any) -> tuple[dict[str, Any], Path]:
    recipe = records_recipe(data, steps=4, epochs=1.0, config={"selector_noise": 0.0, "gate_noise": False}, **stage)
    return recipe, write_recipe(folder, recipe)


def test_losses_are_those_without(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    recipe, path = cached(tmp_path / "plain", tmp_path / "data")
    train(path, tmp_path / "without")
    recipe["stages"][0]["cache_features"] = {"folder": str(tmp_path / "cache"), "dtype": "float32"}
    path = write_recipe(tmp_path / "cached", recipe)
    train(path, tmp_path / "with")
    assert "features: 2 images encoded, 2 in" in capfd.readouterr().err
    expected = losses(tmp_path / "without" / "3")
    assert sorted(expected) == [1, 2, 3, 4]
    assert losses(tmp_path / "with" / "3") == pytest.approx(expected, rel=1e-6)
    weights = [load_file(tmp_path / name / "3" / "model" / "model.safetensors") for name in ("with", "without")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-6, rtol=1e-5)

    # A second run reads what the first one stored; an image that changed is another one.
    train(path, tmp_path / "again")
    assert "features: 0 images encoded, 2 in" in capfd.readouterr().err
    assert losses(tmp_path / "again" / "3") == losses(tmp_path / "with" / "3")
    Image.new("RGB", (70, 60), "green").save(tmp_path / "data" / "a.png")
    train(path, tmp_path / "changed")
    assert "features: 1 images encoded, 3 in" in capfd.readouterr().err
    assert losses(tmp_path / "changed" / "3") != pytest.approx(expected, rel=1e-6)


def test_a_damaged_image_is_left_out_as_ever(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe, _ = cached(tmp_path / "r", tmp_path / "data")
    (tmp_path / "data" / "b.png").write_bytes((tmp_path / "data" / "b.png").read_bytes()[:60])
    recipe["stages"][0]["data"]["max_bad"] = 0.4
    recipe["stages"][0]["cache_features"] = {"folder": str(tmp_path / "cache")}
    train(write_recipe(tmp_path, recipe), tmp_path / "run")
    said = capfd.readouterr().err
    assert "features: 1 images encoded" in said
    assert "left out: " in said
    assert "b.png" in said
    assert json.loads((tmp_path / "run" / "3" / "model" / "stage.json").read_text())["steps"] == 4


def test_an_image_that_changes_during_a_run(tmp_path: Path) -> None:
    Image.new("RGB", (70, 60), "red").save(tmp_path / "a.png")
    store = store_in(tmp_path / "cache")
    store.add(key_of((tmp_path / "a.png").read_bytes()), (1, 2), torch.zeros(3, 4, 5))
    store.flush()
    assert store.open_image("a.png", tmp_path).grid == (1, 2)
    Image.new("RGB", (70, 60), "green").save(tmp_path / "a.png")
    with pytest.raises(DataError, match="the image has changed since"):
        store.open_image("a.png", tmp_path)
    with pytest.raises(DataError, match="no such file"):
        store.open_image("b.png", tmp_path)


def test_only_for_frozen_encoders_and_records(tmp_path: Path) -> None:
    recipe, _ = cached(tmp_path / "r", tmp_path / "data", cache_features={"folder": "x"})
    recipe["stages"][0]["trains"].append("vision_tower")
    with pytest.raises(ConfigError, match=r"'stages\.3\.cache_features' needs a frozen vision encoder"):
        load_recipe(write_recipe(tmp_path, recipe))
    recipe["stages"][0]["trains"].pop()
    recipe["stages"][0]["data"] = {"pages": {}}
    with pytest.raises(ConfigError, match=r"cache_features' needs 'data\.records' or 'data\.mixture'"):
        load_recipe(write_recipe(tmp_path, recipe))
    recipe["stages"][0]["cache_features"] = {"folder": "x", "dtype": "int8"}
    with pytest.raises(ConfigError, match=r"dtype' is 'int8', expected bfloat16, float16 or float32"):
        load_recipe(write_recipe(tmp_path, recipe))
