from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from transformers import AutoConfig, AutoModel, PPLCNetV4Config
from transformers.models.pp_lcnet_v4.modeling_pp_lcnet_v4 import PPLCNetV4Encoder

import slime_vlm
from slime_vlm.checkpoints.from_pretrained_parts import new
from slime_vlm.errors import CheckpointError, ConfigError
from slime_vlm.inference.answering import ask
from slime_vlm.model.configuration_recogniser import RecogniserConfig
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.recogniser_encoder import RecogniserBlock, RecogniserEncoder
from slime_vlm.model.vision_encoder import build_vision_encoder, encode_views
from tests.checkpoints.pretrained_parts.families import write_language_model

_SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_recogniser.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("convert_recogniser", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def encoder() -> RecogniserEncoder:
    torch.manual_seed(0)
    return RecogniserEncoder(RecogniserConfig()).eval()


def text_views() -> torch.Tensor:
    """Two coloured tiles with lines of text, [2, 3, 256, 256]."""
    views = []
    for paper, ink, size in (((255, 255, 240), (10, 20, 90), 14), ((40, 60, 50), (250, 230, 200), 20)):
        image = Image.new("RGB", (256, 256), paper)
        draw = ImageDraw.Draw(image)
        for line in range(8):
            draw.text(
                (3 + line, 4 + 31 * line),
                f"Total due {17 * line}.50 for Quay {line}",
                ink,
                ImageFont.load_default(size),
            )
        views.append((np.asarray(image, np.float32) / 255 - 0.5) / 0.5)
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous()


# One block, by hand ---------------------------------------------------------------------------------------------------


def test_a_block_by_hand() -> None:
    """One channel of 2 x 2 numbers.

    The depthwise kernel takes twice the middle and adds the right neighbour: [[1, 2], [3, 4]] -> [[4, 4], [10, 8]], of
    mean 6.5. The gate's hidden channel is relu(6.5 - 5) = 1.5, its number hardsigmoid(2 * 1.5 - 3) = 0 / 6 + 0.5.
    The map becomes [[2, 2], [5, 4]]. The MLP adds 3 * gelu(x - 2) - gelu(-x): with gelu(0) = 0, gelu(3) = 2.99595,
    gelu(2) = 1.95450, gelu(-2) = -0.04550, gelu(-5) = -0.0000014, gelu(-4) = -0.00013.
    """
    block = RecogniserBlock(width=1, out_width=1, gate_reduction=1)
    assert block.gate is not None
    with torch.no_grad():
        block.depthwise.weight.copy_(torch.tensor([[[[0.0, 0, 0], [0, 2, 1], [0, 0, 0]]]]))
        block.gate.squeeze.weight.fill_(1.0)
        block.gate.squeeze.bias.fill_(-5.0)
        block.gate.excite.weight.fill_(2.0)
        block.gate.excite.bias.fill_(-3.0)
        block.expand.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        block.expand.bias.copy_(torch.tensor([-2.0, 0.0]))
        block.contract.weight.copy_(torch.tensor([[3.0, -1.0]]))
        block.depthwise.bias.zero_()
        block.contract.bias.zero_()
        found = block(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    expected = torch.tensor([[2 + 0.04550, 2 + 0.04550], [5 + 3 * 2.99595, 4 + 3 * 1.95450 + 0.00013]])
    torch.testing.assert_close(found[0, 0], expected, atol=1e-4, rtol=0)


def test_a_block_that_changes_size_has_no_residual() -> None:
    block = RecogniserBlock(width=2, out_width=4, stride=(2, 1))
    with torch.no_grad():
        block.contract.weight.zero_()
        found = block(torch.randn(1, 2, 6, 6))
    assert found.shape == (1, 4, 3, 6)
    torch.testing.assert_close(found, block.contract.bias.view(1, 4, 1, 1).expand_as(found))


# Other implementations of the same backbone ---------------------------------------------------------------------------


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution with the batch norm behind it."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return convolution.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale


def test_the_backbone_of_transformers_with_its_norms_folded(encoder: RecogniserEncoder) -> None:
    stages = PPLCNetV4Config().block_configs
    # It wants four stages: the last one here is made of blocks of the second.
    config = PPLCNetV4Config(block_configs=[stages[0], stages[1], stages[2][:1], stages[2][1:]])
    other = PPLCNetV4Encoder(config).eval()
    torch.manual_seed(1)
    ours: list[nn.Conv2d | nn.Linear] = [
        layer
        for layer in encoder.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer is not encoder.projection
    ]
    with torch.no_grad():
        for module in other.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.1)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        theirs: list[tuple[torch.Tensor, torch.Tensor]] = []
        norm_of = {id(module.convolution): module.normalization for module in other.modules() if hasattr(module, "lab")}
        for module in other.modules():
            if isinstance(module, nn.Conv2d):
                norm = norm_of.get(id(module))
                theirs.append(fold(module, norm) if norm is not None else (module.weight, module.bias))
        for layer, (weight, bias) in zip(ours, theirs, strict=True):
            layer.weight.copy_(weight.view_as(layer.weight))
            assert layer.bias is not None
            layer.bias.copy_(bias)
        views = torch.randn(2, 3, 64, 96)
        expected = other(views).last_hidden_state
        found = encoder(views, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


def test_the_recogniser_of_rapidocr(script: Any) -> None:
    """The last map is that of onnxruntime, on random views and on text, to 1e-4."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("rapidocr")
    onnx = script.onnx_path().read_bytes()
    found = script.read_recogniser(onnx, RecogniserConfig())
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(truncated(script, onnx, "Conv.43"), options)
    torch.manual_seed(0)
    views = torch.cat([torch.rand(1, 3, 256, 256) * 2 - 1, text_views()])
    expected = session.run(None, {"x": views.flip(1).numpy()})[0]
    with torch.inference_mode():
        maps = found(views, output_hidden_states=True).hidden_states
    assert [tuple(features.shape[1:]) for features in maps] == [(96, 64, 64), (96, 64, 64), (192, 32, 64), (256, 384)]
    torch.testing.assert_close(maps[-2], torch.from_numpy(expected), atol=1e-4, rtol=0)
    # Both channels' order and the text matter, or the comparison would say little.
    with torch.inference_mode():
        swapped = found(views.flip(1), output_hidden_states=True).hidden_states[-2]
    assert float((swapped - maps[-2]).abs().max()) > 0.1


def truncated(script: Any, onnx: bytes, last: str) -> bytes:
    """The ONNX file up to the input of the node `last`, for images of any size."""

    def varint(value: int) -> bytes:
        low = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
        return bytes([*(byte | 128 for byte in low[:-1]), low[-1]])

    def field(number: int, value: int | bytes) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    def name_only(name: bytes, sizes: bool) -> bytes:
        # ValueInfoProto: name 1, type 2; TypeProto: tensor 1; Tensor: element type 1 (1 is float32), shape 2;
        # Shape: dimension 1; Dimension: size 1, parameter 2.
        shape = b"".join(field(1, field(2, letter)) for letter in (b"v", b"c", b"h", b"w"))
        kind = field(2, field(1, field(1, 1) + field(2, shape)))
        return field(1, name) + (kind if sizes else b"")

    graph = b""
    done = False
    for number, value in script.fields(script._bytes(onnx, script.GRAPH)[0]):
        if number == script.NODE and not done:
            parts = list(script.fields(value))
            done = (3, last.encode()) in parts
            output = next(part for key, part in parts if key == script.NODE_INPUT) if done else b""
            graph += field(12, name_only(output, False)) if done else field(number, value)
        elif number not in (script.NODE, 11, 12, 13):
            graph += field(number, value)
    rest = b"".join(field(number, value) for number, value in script.fields(onnx) if number != script.GRAPH)
    return rest + field(script.GRAPH, graph + field(11, name_only(b"x", True)))


# Use ------------------------------------------------------------------------------------------------------------------


def test_the_script_writes_a_folder_that_transformers_loads(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rapidocr")
    target = tmp_path / "recogniser"
    monkeypatch.setattr(sys, "argv", ["convert_recogniser.py", str(target)])
    script.main()
    assert "1,778,496 numbers, 590,208 of them (the projection) drawn" in capsys.readouterr().out
    assert "PP-OCRv6_rec_small.onnx" in (target / "NOTICE").read_text()
    assert "Apache License" in (target / "LICENSE").read_text()
    loaded = AutoModel.from_pretrained(target)
    expected = script.read_recogniser(script.onnx_path().read_bytes(), RecogniserConfig())
    assert isinstance(loaded, RecogniserEncoder)
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    with pytest.raises(CheckpointError, match="exists already"):
        script.main()


def test_another_file_is_refused(script: Any) -> None:
    pytest.importorskip("rapidocr")
    other = script.onnx_path().with_name("PP-OCRv6_det_small.onnx")
    if not other.is_file():
        pytest.skip("this rapidocr has no detector beside the recogniser")
    with pytest.raises(CheckpointError, match=r"not PP-OCRv6's small recogniser"):
        script.read_recogniser(other.read_bytes(), RecogniserConfig())


def test_saved_is_loaded(encoder: RecogniserEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    views = text_views()
    with torch.inference_mode():
        assert torch.equal(loaded(views).last_hidden_state, encoder(views).last_hidden_state)


def test_views_do_not_depend_on_their_batch(encoder: RecogniserEncoder) -> None:
    views = torch.cat([text_views(), torch.randn(2, 3, 256, 256)])
    for model in (encoder, encoder.train()):
        with torch.no_grad():
            together = model(views).last_hidden_state
            alone = torch.cat([model(view[None]).last_hidden_state for view in views])
        # Drawn weights give features of thousands.
        torch.testing.assert_close(together, alone, atol=1e-4 * float(alone.abs().max()), rtol=1e-4)


def test_features_lie_where_their_pixels_do(encoder: RecogniserEncoder) -> None:
    views = torch.zeros(2, 3, 256, 256)
    views[1, :, 100:108, 200:208] = 1.0
    with torch.inference_mode():
        features = encode_views(encoder, views, layer=-1, num_tokens=256)
    assert int((features[1] - features[0]).norm(dim=-1).argmax()) == 100 // 16 * 16 + 200 // 16


def test_gradients_reach_every_weight(encoder: RecogniserEncoder) -> None:
    encoder(text_views()).last_hidden_state.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_it_is_a_vision_encoder_of_slime() -> None:
    config = SlimeConfig(
        vision_config={"model_type": "slime_recogniser", "hidden_size": 64},
        text_config={"hidden_size": 32, "num_attention_heads": 2},
        vision_feature_layer=-1,
    )
    assert (config.view_size, config.patch_size, config.num_global_tokens, config.vision_width) == (256, 16, 256, 64)
    encoder = build_vision_encoder(config.vision_config)
    assert encode_views(encoder, torch.zeros(1, 3, 256, 256), layer=-1, num_tokens=256).shape == (1, 256, 64)


def test_slime_new_takes_its_folder(encoder: RecogniserEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / "recogniser")
    statistics = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "recogniser" / "preprocessor_config.json").write_text(json.dumps(statistics))
    llm = write_language_model(tmp_path / "llm", "llama", "llama3")
    fields = {"num_local_queries": 64, "query_attention_head_dim": 32, "vision_feature_layer": -1}
    new(str(tmp_path / "recogniser"), str(llm), tmp_path / "slime", fields=fields)
    model, processor = slime_vlm.load(tmp_path / "slime", device="cpu")
    for name, value in encoder.state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], value), name
    image = Image.linear_gradient("L").resize((300, 200)).convert("RGB")
    assert "<image>" not in ask(model, processor, image, ["What?"], max_new_tokens=2)[0].text


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one for every stage"):
        RecogniserConfig(stage_depths=(3,))
    with pytest.raises(ConfigError, match="expected a multiple of the last map's strides 8 and 4"):
        RecogniserConfig(patch_size=12)
