"""Damaged GGUF files: one line, before the package gguf believes a count."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from slime_vlm.checkpoints.gguf_files import gguf_shapes
from slime_vlm.checkpoints.pretrained_parts import text_config_of
from slime_vlm.errors import CheckpointError
from tests.checkpoints.pretrained_parts.families import write_language_model

gguf = pytest.importorskip("gguf")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A file with settings of several types and two tensors."""
    writer = gguf.GGUFWriter(tmp_path / "good.gguf", "llama")
    for name in ("context_length", "embedding_length", "block_count", "feed_forward_length", "head_count"):
        getattr(writer, f"add_{name}")(2)
    writer.add_token_list(["a", "b", "ü"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    for name, shape in (("token_embd.weight", (3, 32)), ("output.weight", (3, 32))):
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "good.gguf"


def test_shapes_of_a_good_file(good: Path) -> None:
    assert gguf_shapes(good) == {"token_embd.weight": (32, 3), "output.weight": (32, 3)}
    assert text_config_of(str(good)).num_hidden_layers == 2


@pytest.mark.parametrize("keep", [0.02, 0.2, 0.5, 0.99])
def test_a_truncated_file(good: Path, keep: float) -> None:
    content = good.read_bytes()
    good.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=r"good\.gguf is truncated"):
        text_config_of(str(good))


def put(path: Path, position: int, letter: str, value: int) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + letter, content, position, value)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("position", "letter", "value", "words"),
    [
        (0, "I", 0, "does not start with the letters GGUF"),
        (4, "I", 99, "has version 99"),
        (8, "Q", 2**60, "announces 1,152,921,504,606,846,976 tensors"),
        (16, "Q", 2**60, "settings"),
        (24, "Q", 2**62, "goes beyond its end"),
    ],
)
def test_wrong_numbers_in_the_header(good: Path, position: int, letter: str, value: int, words: str) -> None:
    put(good, position, letter, value)
    with pytest.raises(CheckpointError, match=words):
        text_config_of(str(good))


def test_wrong_numbers_further_on(good: Path) -> None:
    content = good.read_bytes()
    tokens = content.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens")
    put(good, tokens + 8, "Q", 10**9)
    with pytest.raises(CheckpointError, match="lists of more than 2,000,000 elements"):
        text_config_of(str(good))
    tensor = content.index(b"output.weight") + len("output.weight")
    for position, letter, value, words in (
        (tensor, "I", 10**6, "a tensor of 1,000,000 dimensions"),
        (tensor + 4, "Q", 2**50, "its last tensor ends"),
        (tensor + 20, "I", 999, "a tensor of the unknown type 999"),
        (tensor + 24, "Q", 2**62, "its last tensor ends"),
        (tokens, "I", 77, "a setting of the unknown type 77"),
        (tokens + 4, "I", 9, "a list of type 9"),
    ):
        good.write_bytes(content)
        put(good, position, letter, value)
        with pytest.raises(CheckpointError, match=words):
            text_config_of(str(good))


@pytest.mark.parametrize(("name", "value"), [("block_count", 10**9), ("embedding_length", 2**30)])
def test_settings_of_a_larger_model(good: Path, name: str, value: int) -> None:
    put(good, good.read_bytes().index(f"llama.{name}".encode()) + len(f"llama.{name}") + 4, "I", value)
    with pytest.raises(CheckpointError, match="but the weights have"):
        text_config_of(str(good))


def test_a_folder_with_the_config_of_a_larger_model(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path / "llama", "llama", "vicuna")
    config = json.loads((folder / "config.json").read_text())
    for name, value in (("num_hidden_layers", 10**9), ("intermediate_size", 2**40)):
        (folder / "config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(CheckpointError, match="but the weights have"):
            text_config_of(str(folder))
