"""Checkpoints of the hub, over huggingface_hub's own client: their sizes are checked before anything is fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from slime_vlm.checkpoints.from_pretrained_parts import new
from slime_vlm.checkpoints.hub import at_hand, resolve
from slime_vlm.checkpoints.loading import load
from slime_vlm.errors import CheckpointError
from tests.checkpoints.hub_server import Hub, serving
from tests.checkpoints.pretrained_parts.families import write_language_model, write_tower

FIELDS = {"num_local_queries": 4, "query_attention_head_dim": 8}
PETABYTE = 10**15


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("parts")
    vision, llm = write_tower(root / "clip", "clip"), write_language_model(root / "llama", "llama", "vicuna")
    # As in many repositories.
    (llm / "pytorch_model.bin").write_bytes(b"the same weights once more")
    (vision / "tf_model.h5").write_bytes(b"the same weights for another library")
    return {"me/eye": vision, "me/words": llm}


@pytest.fixture
def hub(parts: dict[str, Path], tmp_path: Path) -> Iterator[Hub]:
    copies = {name: Path(shutil.copytree(folder, tmp_path / "hub" / name)) for name, folder in parts.items()}
    with serving(copies, tmp_path / "cache") as hub:
        yield hub


def test_a_new_model_of_two_repositories(hub: Hub, parts: dict[str, Path], tmp_path: Path) -> None:
    new("me/eye", "me/words@v1", tmp_path / "made", fields=FIELDS)
    assert hub.fetched.count("model.safetensors") == 2
    assert not {"pytorch_model.bin", "tf_model.h5"} & set(hub.fetched)
    card = (tmp_path / "made" / "README.md").read_text()
    for name in parts:
        assert f"- {name}, revision {hub.commit(name)}\n" in card
    new(str(parts["me/eye"]), str(parts["me/words"]), tmp_path / "expected", fields=FIELDS)
    (ours, _), (theirs, _) = load(tmp_path / "made"), load(tmp_path / "expected")
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())

    # And the cache alone is enough.
    hub.repositories.clear()
    new("me/eye", "me/words@v1", tmp_path / "again", fields=FIELDS)


def test_a_checkpoint_of_a_repository(hub: Hub, parts: dict[str, Path], tmp_path: Path) -> None:
    new(str(parts["me/eye"]), str(parts["me/words"]), tmp_path / "made", fields=FIELDS)
    hub.repositories["me/slime"] = tmp_path / "made"
    assert at_hand("me/slime") is None
    model, _ = load("me/slime@v1")
    assert model.config.num_local_queries == 4
    assert resolve("me/slime@v1").name == hub.commit("me/slime")
    assert at_hand("me/slime@v1") == resolve("me/slime@v1")
    assert at_hand("me/words") is None
    with pytest.raises(CheckpointError, match="me/slime@v2: neither a local folder nor on the hub"):
        load("me/slime@v2")


def test_weights_that_the_disk_cannot_take(hub: Hub, tmp_path: Path) -> None:
    hub.announced["model.safetensors"] = PETABYTE
    expected = r"takes 1,000,000\.0 GB to download, but .*cache has .* free some space, or set HF_HOME"
    with pytest.raises(CheckpointError, match=expected) as caught:
        new("me/eye", "me/words", tmp_path / "made", fields=FIELDS)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=expected):
        load("me/words")
    assert "config.json" in hub.fetched
    assert "model.safetensors" not in hub.fetched
    assert not (tmp_path / "made").exists()


def test_settings_that_are_far_too_large(hub: Hub, tmp_path: Path) -> None:
    hub.announced["tokenizer.json"] = 10**9
    with pytest.raises(CheckpointError, match=r"me/words has 1\.0 GB of configs and tokenizer on the hub, expected at"):
        new("me/eye", "me/words", tmp_path / "made", fields=FIELDS)
    assert "tokenizer.json" not in hub.fetched


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "config.json has num_hidden_layers 1000000000, but the weights have"),
        ({"hidden_size": 3 * 2**20}, "config.json describes a model of"),
        ({"hidden_size": 2**20}, "is not a language model.*not a multiple of the number of attention heads"),
        ({"model_type": "clip"}, "is a model of type 'clip', expected a language model"),
    ],
)
def test_a_config_of_another_model(hub: Hub, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = hub.repositories["me/words"] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message) as caught:
        new("me/eye", "me/words", tmp_path / "made", fields=FIELDS)
    assert "\n" not in str(caught.value)


def test_a_repository_without_a_checkpoint(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("Nothing.")
    hub.repositories["me/nothing"] = tmp_path / "empty"
    for name, message in (("me/nothing", "has no files of a checkpoint"), ("me/else", "neither a local folder nor")):
        with pytest.raises(CheckpointError, match=message):
            resolve(name)
        with pytest.raises(CheckpointError, match=message):
            new(name, "me/words", tmp_path / "made", fields=FIELDS)
