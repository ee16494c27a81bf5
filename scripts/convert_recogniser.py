"""Write the first two stages of PP-OCRv6's recogniser as a vision encoder folder in the layout of transformers.

The weights are read from the installed `rapidocr` package (pip install "slime-vlm[ocr]") and are never part of this
repository. `slime new --vision FOLDER --set vision_feature_layer=-1 …` and recipes take the folder.

    python scripts/convert_recogniser.py runs/recogniser
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import set_seed

from slime_vlm.errors import CheckpointError
from slime_vlm.model.configuration_recogniser import RecogniserConfig
from slime_vlm.model.recogniser_encoder import RecogniserEncoder

MODEL_FILE = "models/PP-OCRv6_rec_small.onnx"

NOTICE = """The tensors of stem and stages in model.safetensors are those of the first two stages of PP-OCRv6_small_rec.
They were read from the file {file} of the package rapidocr {version}
(SHA-256 {digest}).
Copyright Baidu and/or the applicable PaddleOCR rights holders, licensed under the Apache License, Version 2.0
(LICENSE beside this file, http://www.apache.org/licenses/LICENSE-2.0). What rapidocr says about its models is in
MODEL_LICENSES.md.

Changed by slime-vlm: the other stages and the head are left out, tensors have other names, the first convolution takes
RGB in place of BGR, and a projection with random weights (`projection.*`) is added.
"""

# Field numbers of the messages in onnx.proto.
GRAPH, NODE, INITIALIZER = 7, 1, 5
NODE_INPUT, NODE_OUTPUT, NODE_TYPE = 1, 2, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
FLOAT32 = 1


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the (number, value) of every field of a protocol buffer message.

    The file needs no more than this, and so no `onnx` package.
    """
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        if kind not in (1, 2, 5):
            raise CheckpointError(f"the ONNX file has a field of wire type {kind}, expected 0, 1, 2 or 5; is it whole?")
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        yield number, message[position : position + size]
        position += size


def _bytes(message: bytes, number: int) -> list[bytes]:
    return [value for found, value in fields(message) if found == number and isinstance(value, bytes)]


def _tensor(message: bytes) -> tuple[str, Tensor | None]:
    """Name and float32 values of an initializer; None for other types."""
    shape, dtype, name, raw = [], 0, "", b""
    for number, value in fields(message):
        if number == TENSOR_DIMS and isinstance(value, int):
            shape.append(value)
        elif number == TENSOR_TYPE and isinstance(value, int):
            dtype = value
        elif number == TENSOR_NAME and isinstance(value, bytes):
            name = value.decode()
        elif number == TENSOR_RAW and isinstance(value, bytes):
            raw = value
    if dtype != FLOAT32 or not raw:
        return name, None
    return name, torch.from_numpy(np.frombuffer(raw, "<f4").reshape(shape).copy())


def convolutions(onnx: bytes) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of the convolutions in the order of computation, up to the first one without a bias."""
    graph = _bytes(onnx, GRAPH)[0]
    tensors = dict(_tensor(message) for message in _bytes(graph, INITIALIZER))
    nodes = [
        [[part.decode() for part in _bytes(node, number)] for number in (NODE_TYPE, NODE_INPUT, NODE_OUTPUT)]
        for node in _bytes(graph, NODE)
    ]
    bias_of = {inputs[0]: tensors.get(inputs[1]) for [kind], inputs, _ in nodes if kind == "Add"}
    found = []
    for [kind], inputs, outputs in nodes:
        if kind != "Conv":
            continue
        weight, bias = tensors.get(inputs[1]), bias_of.get(outputs[0])
        if weight is None or bias is None:
            # Later parts of the recogniser have convolutions of other forms. Whether enough were found, the caller
            # knows.
            break
        found.append((weight, bias.flatten()))
    return found


def read_recogniser(onnx: bytes, config: RecogniserConfig, seed: int = 0) -> RecogniserEncoder:
    """Build the encoder with the weights of an ONNX file; its projection is drawn.

    Raises:
        CheckpointError: The file's convolutions are not those of the config.
    """
    set_seed(seed)
    encoder = RecogniserEncoder(config)
    layers = [
        (name, layer)
        for name, layer in encoder.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer is not encoder.projection
    ]
    found = convolutions(onnx)
    if len(found) < len(layers):
        raise CheckpointError(
            f"the ONNX file has {len(found)} convolutions with a bias, expected {len(layers)} or more"
        )
    with torch.no_grad():
        for (name, layer), (weight, bias) in zip(layers, found, strict=False):
            if isinstance(layer, nn.Linear) and weight.shape[2:] == (1, 1):
                weight = weight.flatten(1)
            if weight.shape != layer.weight.shape or layer.bias is None or bias.shape != layer.bias.shape:
                raise CheckpointError(
                    f"the ONNX file has a convolution of shape {list(weight.shape)} for {name}, expected "
                    f"{list(layer.weight.shape)}: this is not PP-OCRv6's small recogniser"
                )
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        # The recogniser was trained on BGR.
        encoder.stem.first.weight.copy_(encoder.stem.first.weight.flip(1))
    return encoder.eval()


def onnx_path() -> Path:
    """Find the recogniser of the installed `rapidocr` package.

    Raises:
        CheckpointError: There is none.
    """
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise CheckpointError('rapidocr is not installed, expected it for its weights: pip install "slime-vlm[ocr]"')
    path = Path(spec.origin).parent / MODEL_FILE
    if not path.is_file():
        version = importlib.metadata.version("rapidocr")
        raise CheckpointError(f"rapidocr {version} has no {MODEL_FILE}, expected a version with it, such as 3.10.0")
    return path


def main() -> None:
    """Convert, and say what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", type=Path, help="folder to write; must not exist or be empty")
    parser.add_argument("--hidden-size", type=int, default=RecogniserConfig.hidden_size, help="width of the features")
    parser.add_argument("--patch-size", type=int, default=RecogniserConfig.patch_size, help="pixels per feature")
    parser.add_argument("--seed", type=int, default=0, help="seed of the projection")
    arguments = parser.parse_args()
    target: Path = arguments.target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists already, expected a new or empty folder; choose another one")
    source = onnx_path()
    config = RecogniserConfig(hidden_size=arguments.hidden_size, patch_size=arguments.patch_size)
    content = source.read_bytes()
    encoder = read_recogniser(content, config, arguments.seed)
    encoder.save_pretrained(target)
    statistics = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (target / "preprocessor_config.json").write_text(json.dumps(statistics, indent=2) + "\n")
    package = importlib.metadata.distribution("rapidocr")
    for name in ("LICENSE", "MODEL_LICENSES.md"):
        text = package.read_text(f"licenses/{name}")
        if text is None:
            raise CheckpointError(f"rapidocr {package.version} comes without licenses/{name}, expected such as 3.10.0")
        (target / name).write_text(text)
    notice = NOTICE.format(
        file=source.name,
        digest=hashlib.sha256(content).hexdigest(),
        version=package.version,
    )
    (target / "NOTICE").write_text(notice)
    numbers = sum(parameter.numel() for parameter in encoder.parameters())
    drawn = sum(parameter.numel() for parameter in encoder.projection.parameters())
    print(f"{target}: {numbers:,} numbers, {drawn:,} of them (the projection) drawn")  # noqa: T201


if __name__ == "__main__":
    main()
