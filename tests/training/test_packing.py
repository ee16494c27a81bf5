"""Which records share a forward pass, and that a run with packed rows learns what one with padded rows learns."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from slime_vlm.data import MixtureOrder, RecordDataset, Share, open_source
from slime_vlm.data.images import stored_image_size
from slime_vlm.errors import ConfigError
from slime_vlm.training.packing import EvenOrder, TokensOf, even_packs
from slime_vlm.training.run import train
from tests.conftest import tiny_config
from tests.training.mini import losses, records_recipe, write_recipe

# (height, width) of images for views of 56 pixels, and their tiles.
SIZES = {(56, 56): 2, (56, 112): 2, (112, 112): 4, (112, 168): 6, (392, 56): 7}


def write_sizes(folder: Path) -> RecordDataset:
    """Records with an image of each size, two of text, and one whose image is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    records: list[dict[str, Any]] = []
    for height, width in SIZES:
        Image.new("RGB", (width, height)).save(folder / f"{height}x{width}.png")
        records.append({"image": f"{height}x{width}.png", "conversations": turns})
    for length in (40, 4000):
        said = [{"from": "human", "value": "a" * length}, {"from": "gpt", "value": "b" * length}]
        records.append({"conversations": said})
    records.append({"image": "none.png", "conversations": turns})
    path = folder / "sizes.json"
    path.write_text(json.dumps(records))
    return RecordDataset(open_source(path))


def test_packs_by_hand() -> None:
    assert even_packs([9, 1, 2, 8], 2) == [[0, 1], [2, 3]]
    # Room matters more than balance: one long sample does not fill a pack by itself.
    assert even_packs([100, 1, 1, 1], 2) == [[0, 3], [1, 2]]
    assert even_packs([5, 6, 7], 1) == [[2], [1], [0]]
    assert even_packs([5, 6, 7], 3) == [[0, 1, 2]]


def test_packs_are_even() -> None:
    lengths = [37 * n % 101 for n in range(32)]
    sums = [sum(lengths[n] for n in pack) for pack in even_packs(lengths, 4)]
    in_turn = [sum(lengths[n : n + 4]) for n in range(0, 32, 4)]
    assert max(sums) - min(sums) < (max(in_turn) - min(in_turn)) / 10


def test_tokens_are_told_by_the_size(tmp_path: Path) -> None:
    config = tiny_config()
    tokens = TokensOf(write_sizes(tmp_path), config, None)
    # Global tokens, the separator, four for each tile; the question and its answer are 17 characters.
    assert [tokens(index) for index in range(5)] == [16 + 1 + 4 * tiles + 17 // 4 for tiles in SIZES.values()]
    assert [tokens(5), tokens(6)] == [20, 2000]
    # An image that cannot be looked at counts as the largest.
    assert tokens(7) == 16 + 1 + 4 * 7 + 4
    assert TokensOf(tokens.dataset, config, 300)(6) == 300


def test_sizes_without_decoding(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (300, 200)).save(content, "JPEG")
    half = content.getvalue()[: len(content.getvalue()) // 2]
    (tmp_path / "half.jpg").write_bytes(half)
    assert stored_image_size("half.jpg", tmp_path) == (200, 300)
    assert stored_image_size({"bytes": half}, tmp_path) == (200, 300)
    assert stored_image_size("no.jpg", tmp_path) is None
    assert stored_image_size("https://example.org/a.jpg", tmp_path) is None


def test_a_step_keeps_its_records(tmp_path: Path) -> None:
    mixture = write_sizes(tmp_path), [Share(passes=3)], 5
    plain = MixtureOrder(*mixture, count=24)

    def even() -> EvenOrder:
        order = EvenOrder(*mixture, TokensOf(mixture[0], tiny_config(), None), 8, 2)
        order.count = 24
        return order

    packed = [even()[n] for n in range(24)]
    for first in (0, 8, 16):
        assert sorted(packed[first : first + 8]) == sorted(plain[n] for n in range(first, first + 8))
    assert packed != [plain[n] for n in range(24)]
    # From any place on, with nothing seen before: what a resumed run takes.
    assert [even()[n] for n in range(13, 24)] == packed[13:]
    assert even().state(8) == plain.state(8)
    with pytest.raises(IndexError):
        even()[24]


def test_which_records_a_run_takes(tmp_path: Path) -> None:
    def tokens_of(index: int) -> int:
        raise AssertionError("which records they are does not hang on their lengths")

    mixture = write_sizes(tmp_path), [Share(passes=0.5)], 5
    for count in (4, 6, 12):
        plain = MixtureOrder(*mixture, count=count)
        packed = EvenOrder(*mixture, tokens_of, 2, 2)
        packed.count = count
        assert packed.taken() == plain.taken() == sorted({plain[n] for n in range(count)})


@pytest.mark.parametrize("micro", [4, 2])
def test_packing_changes_nothing(tmp_path: Path, micro: int) -> None:
    curves = []
    for packing in (False, True):
        folder = tmp_path / str(packing)
        recipe = records_recipe(folder, micro_batch_size=micro, batch_size=4, steps=3, packing=packing)
        recipe["stages"][0]["config"] = {"selector_noise": 0.0, "gate_noise": False}
        train(write_recipe(folder, recipe), folder / "run")
        curves.append(losses(folder / "run" / "3"))
    assert sorted(curves[0]) == [1, 2, 3]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)


def test_packing_goes_with_stored_features_and_adapters(tmp_path: Path) -> None:
    curves = []
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0}
    together = {"packing": True, "cache_features": {"folder": str(tmp_path / "cache"), "dtype": "float32"}}
    for name, options in (("plain", {}), ("together", together)):
        folder, batches = tmp_path / name, {"batch_size": 4, "micro_batch_size": 2, "steps": 3}
        recipe = records_recipe(folder, lora=lora, gradient_checkpointing=True, **batches, **options)
        recipe["stages"][0]["config"] = {"selector_noise": 0.0, "gate_noise": False}
        train(write_recipe(folder, recipe), folder / "run")
        curves.append(losses(folder / "run" / "3"))
    assert sorted(curves[0]) == [1, 2, 3]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)


def test_a_packed_run_goes_on(tmp_path: Path) -> None:
    recipe = records_recipe(tmp_path, packing=True, batch_size=4, micro_batch_size=2, steps=4, save_minutes=0.0)
    recipe["stages"][0]["trains"] = ["projector"]
    path, whole, broken = write_recipe(tmp_path, recipe), tmp_path / "whole", tmp_path / "broken"
    train(path, whole)
    shutil.copytree(whole, broken)
    # Its last step is taken again, after the checkpoint before it.
    shutil.rmtree(broken / "3" / "model")
    train(path, broken, resume=True)
    ours, theirs = (load_file(folder / "3" / "model" / "model.safetensors") for folder in (broken, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # Of the frozen parts, which are most of the model, the optimizer holds nothing.
    state = torch.load(whole / "3" / "checkpoint-3" / "optimizer.pt")["state"]
    held = sum(value.numel() for values in state.values() for name, value in values.items() if name != "step")
    trained = sum(value.numel() for name, value in theirs.items() if name.startswith("model.projector."))
    assert held == 2 * trained
    assert trained < sum(value.numel() for value in theirs.values()) / 4


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    recipe = records_recipe(tmp_path, packing=True)
    recipe["model"]["config"]["keep_position_ids"] = True
    with pytest.raises(ConfigError, match=r"stage '3': packing recounts positions .* leave packing out"):
        train(write_recipe(tmp_path, recipe), tmp_path / "run")
    recipe["stages"][0] |= {"data": {"pages": {}}, "steps": 1}
    with pytest.raises(ConfigError, match=r"'stages.3.packing' needs records"):
        train(write_recipe(tmp_path, recipe), tmp_path / "other")
