"""Ways to damage a published folder, and what is then said."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.tiny_published import published_weights

HEADER = 8  # bytes that say how long the header of a safetensors file is


def weights_of(folder: Path) -> Path:
    return folder / "model.safetensors"


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Give tensors of the gate another value, None for none; `w_gate` stands for `model.mm_projector.w_gate`."""
    weights = published_weights()
    for name, value in changes.items():
        weights.pop(f"model.mm_projector.{name}", None)
        if value is not None:
            weights[f"model.mm_projector.{name}"] = value
    save_file(weights, weights_of(folder), {"format": "pt"})


def change_header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the header of the weights; the data stay."""
    content = weights_of(folder).read_bytes()
    end = HEADER + struct.unpack("<Q", content[:HEADER])[0]
    header = json.loads(content[HEADER:end])
    change(header)
    written = json.dumps(header).encode()
    weights_of(folder).write_bytes(struct.pack("<Q", len(written)) + written + content[end:])


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pickled(folder: Path, content: object) -> Path:
    weights_of(folder).unlink()
    torch.save(content, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def sharded(folder: Path, **changes: Any) -> None:
    """Two shards and their index, the latter with changes."""
    weights = published_weights()
    names = sorted(weights)
    weights_of(folder).unlink()
    weight_map = {}
    for index, part in enumerate((names[::2], names[1::2])):
        file = f"model-{index + 1:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map, **changes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


class Code:
    """Runs when a pickle of it is read carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


# What is done to a published folder, and a pattern of the line that is then printed.
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {}


def damage(message: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def register(function: Callable[[Path], object]) -> Callable[[Path], object]:
        DAMAGE[function.__name__] = (function, message)
        return function

    return register


@damage("model.safetensors is damaged or incomplete")
def header_cut_off(folder: Path) -> None:
    weights_of(folder).write_bytes(weights_of(folder).read_bytes()[:20])


@damage("model.safetensors is damaged or incomplete")
def header_length_far_too_large(folder: Path) -> None:
    content = weights_of(folder).read_bytes()
    weights_of(folder).write_bytes(struct.pack("<Q", 2**60) + content[HEADER:])


@damage("model.safetensors is damaged or incomplete")
def header_length_too_small(folder: Path) -> None:
    content = weights_of(folder).read_bytes()
    weights_of(folder).write_bytes(struct.pack("<Q", 100) + content[HEADER:])


@damage("model.safetensors is damaged or incomplete")
def garbage(folder: Path) -> None:
    weights_of(folder).write_bytes(bytes(range(256)) * 100)


@damage("model.safetensors is empty")
def empty_file(folder: Path) -> None:
    weights_of(folder).write_bytes(b"")


@damage("model.safetensors is damaged or incomplete")
def data_cut_off(folder: Path) -> None:
    weights_of(folder).write_bytes(weights_of(folder).read_bytes()[:-1000])


@damage("model.safetensors is damaged or incomplete")
def header_with_another_type_than_the_data(folder: Path) -> None:
    change_header(folder, lambda header: header["lm_head.weight"].update(dtype="F32"))


@damage("model.safetensors is damaged or incomplete")
def header_with_a_gigantic_shape(folder: Path) -> None:
    change_header(folder, lambda header: header["lm_head.weight"].update(shape=[10**9, 10**9]))


@damage("model.safetensors is damaged or incomplete")
def header_with_overlapping_data(folder: Path) -> None:
    change_header(folder, lambda header: header["lm_head.weight"].update(data_offsets=[0, 100]))


@damage("model.safetensors is a folder, expected a file")
def folder_in_place_of_the_weights(folder: Path) -> None:
    weights_of(folder).unlink()
    weights_of(folder).mkdir()


@damage("w_gate is of type int32, expected floating point")
def weights_of_integers(folder: Path) -> None:
    change_weights(folder, w_gate=torch.ones(16, 2, dtype=torch.int32))


@damage("w_gate is of an unknown type")
def weights_of_a_type_that_nothing_here_reads(folder: Path) -> None:
    change_weights(folder, w_gate=torch.ones(16, 2).to(torch.float8_e4m3fn))


@damage("lacks 1 tensor.*gate_weight")
def tensor_missing(folder: Path) -> None:
    change_weights(folder, w_gate=None)


@damage("1 tensor.*config.json does not have: model.mm_projector.surprise")
def tensor_unknown(folder: Path) -> None:
    change_weights(folder, surprise=torch.ones(3))


@damage(r"w_gate gives .* the shape \[16, 3\], expected \[16, 2\]")
def tensor_of_another_shape(folder: Path) -> None:
    change_weights(folder, w_gate=torch.ones(16, 3))


@damage("w_gate holds NaN or infinity")
def not_a_number(folder: Path) -> None:
    change_weights(folder, w_gate=torch.full((16, 2), torch.nan))


@damage("w_gate holds NaN or infinity")
def infinity(folder: Path) -> None:
    change_weights(folder, w_gate=torch.full((16, 2), -torch.inf))


@damage("model-00002-of-00002.safetensors, expected every shard")
def shard_missing(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


@damage("has model-00003-of-00002.safetensors, which model.safetensors.index.json does not name")
def shard_too_many(folder: Path) -> None:
    sharded(folder)
    shutil.copy(folder / "model-00002-of-00002.safetensors", folder / "model-00003-of-00002.safetensors")


@damage("disagree about lm_head.weight")
def index_that_does_not_fit_its_shards(folder: Path) -> None:
    sharded(folder)
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    del weight_map["lm_head.weight"]
    change_json(index, weight_map=weight_map)


@damage("index.json names ../model.safetensors, expected file names in its own folder")
def index_that_leaves_the_folder(folder: Path) -> None:
    shutil.copy(weights_of(folder), folder.parent)
    sharded(folder, weight_map={"lm_head.weight": "../model.safetensors"})


@damage("index.json cannot be read")
def index_that_is_no_json(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text("{")


@damage("index.json has no weight_map")
def index_without_a_map(folder: Path) -> None:
    sharded(folder, weight_map=["model-00001-of-00002.safetensors"])


@damage("possibly code, which is never run")
def pickle_with_code(folder: Path) -> None:
    pickled(folder, {"lm_head.weight": Code(folder / "ran")})


@damage("no zip file of torch.save")
def pickle_with_code_in_the_old_format(folder: Path) -> None:
    pickled(folder, {}).write_bytes(pickle.dumps(Code(folder / "ran")))


@damage("no zip file of torch.save")
def pickle_cut_off(folder: Path) -> None:
    path = pickled(folder, published_weights())
    path.write_bytes(path.read_bytes()[:-1000])


@damage("pytorch_model.bin is damaged or incomplete")
def pickle_of_another_program(folder: Path) -> None:
    path = pickled(folder, {})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "nothing of torch")


@damage("is compressed, which torch.save never does")
def pickle_that_is_a_zip_bomb(folder: Path) -> None:
    path = pickled(folder, published_weights())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50 * 1024**2))


@damage("expands lm_head.weight to .* from less data")
def pickle_with_a_stretched_tensor(folder: Path) -> None:
    pickled(folder, {"lm_head.weight": torch.zeros(1, 1).expand(10**6, 10**6)})


@damage("holds a list, expected a dictionary of tensors by name")
def pickle_of_a_list(folder: Path) -> None:
    pickled(folder, [torch.ones(2)])


@damage("holds a int under 'step', expected a plain tensor")
def pickle_with_other_things(folder: Path) -> None:
    pickled(folder, {"step": 3})


@damage("has no weights")
def weights_missing(folder: Path) -> None:
    weights_of(folder).unlink()


@damage("has no config.json")
def config_missing(folder: Path) -> None:
    (folder / "config.json").unlink()


@damage("config.json cannot be read .* expected JSON")
def config_that_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{'model_type'")


@damage("config.json cannot be read")
def config_nested_without_end(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


@damage("config.json holds a list")
def config_that_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


@damage("model type 'mistral', expected the published layout")
def config_of_another_model(folder: Path) -> None:
    change_json(folder / "config.json", model_type="mistral")


@damage("1000000000 layers in the language model, but the weights have 2")
def config_with_a_billion_layers(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=10**9)


@damage("expected .* by config.json")
def config_with_a_gigantic_width(folder: Path) -> None:
    change_json(folder / "config.json", hidden_size=3 * 10**6)


@damage("has num_attention_heads 0, expected a number above 0")
def config_without_heads(folder: Path) -> None:
    change_json(folder / "config.json", num_attention_heads=0)


@damage("config.json does not describe a model")
def config_with_words_for_numbers(folder: Path) -> None:
    change_json(folder / "config.json", hidden_size="wide")


@damage("has the separator 'comma', expected a token of the vocabulary")
def config_with_a_word_for_the_separator(folder: Path) -> None:
    change_json(folder / "config.json", seperator="comma")


@damage("vision encoder's config .* neither a folder .* nor on the hub")
def vision_encoder_that_is_nowhere(folder: Path) -> None:
    change_json(folder / "config.json", mm_vision_tower="nobody/nothing")


@damage("vision encoder's config")
def vision_encoder_of_garbage(folder: Path) -> None:
    (folder / "vision_tower" / "config.json").write_text("no json")


@damage("image_mean 'grey', expected three numbers")
def preprocessing_of_garbage(folder: Path) -> None:
    change_json(folder / "vision_tower" / "preprocessor_config.json", image_mean="grey")


@damage("the tokenizer cannot be read")
def tokenizer_missing(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


@damage("the tokenizer cannot be read")
def tokenizer_of_garbage(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "what"}}')


@damage("generation_config.json cannot be read")
def generation_config_of_garbage(folder: Path) -> None:
    (folder / "generation_config.json").write_text("greedy")
