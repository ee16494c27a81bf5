"""`load(fast=True)`: bfloat16 or int8 by the processor, answers that stay near, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig

from slime_vlm.checkpoints import loading
from slime_vlm.checkpoints.int8_linear import Int8Linear, use_int8
from slime_vlm.checkpoints.loading import load
from slime_vlm.errors import ConfigError
from tests.tiny_checkpoints import save_native


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("native")
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    save_native(root, text_config=LlamaConfig(**text, num_key_value_heads=1))
    return root


@pytest.fixture(params=["bfloat16", "int8"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let `fast` meet a processor of either kind."""
    monkeypatch.setattr(loading, "cpu_has_bf16", lambda: request.param == "bfloat16")
    return str(request.param)


def test_a_product_by_hand() -> None:
    """-0.9 / 2 is -57 of 127 steps, 0.3 is 38 of 127: 2 * (1 - 57 * 38 / 127**2) + 0.5, where 2.23 is exact."""
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.3]]))
        linear.bias.fill_(0.5)
    layer = Int8Linear(linear)
    if layer.levels < 127:
        pytest.skip("sums of two products of 8 bits overflow on this processor; the next test has what it computes")
    assert layer(torch.tensor([[2.0, -0.9]])).item() == pytest.approx(2.231417, abs=1e-5)


def test_without_vnni_a_row_has_seven_bits() -> None:
    linear = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.3]]))
    layer = Int8Linear(linear)
    layer.levels = 63
    # -0.45 is -28 of 63 steps.
    expected = 2 * (1 - 28 / 63 * 38 / 127)
    assert layer(torch.tensor([[2.0, -0.9]])).item() == pytest.approx(expected, abs=1e-5)


def test_a_row_is_rounded_by_itself() -> None:
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(40, 24))
    x = torch.randn(2, 5, 40)
    # Large models have tokens like this one. The others must not be rounded to nothing.
    x[0, 0] *= 1000.0
    alone = torch.stack([torch.stack([layer(token[None])[0] for token in row]) for row in x])
    assert torch.equal(layer(x), alone)
    assert torch.equal(layer(torch.zeros(1, 40))[0], layer.bias)


def test_features_of_an_encoder_with_clips_widths() -> None:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=16, image_size=56
    )
    config.patch_size = 14
    encoder = CLIPVisionModel(config).eval()
    pixels = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        exact = encoder(pixels).last_hidden_state
        for name, layer in list(encoder.named_modules()):
            if type(layer) is nn.Linear:
                encoder.set_submodule(name, Int8Linear(layer))
        assert (encoder(pixels).last_hidden_state - exact).norm() < 0.02 * exact.norm()


def test_layers_of_encoder_and_language_model(folder: Path, kind: str) -> None:
    model, processor = load(folder, device="cpu", fast=True)
    plain, _ = load(folder, device="cpu")
    changed = {name for name, module in model.named_modules() if isinstance(module, Int8Linear)}
    inside = {
        name
        for name, module in plain.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(("model.vision_tower.", "model.language_model."))
    }
    assert len(inside) > 20
    assert changed == (inside if kind == "int8" else set())
    assert model.dtype == (torch.float32 if kind == "int8" else torch.bfloat16)
    inputs = processor(text="<image>\nWhat?", images=Image.effect_noise((90, 60), 80).convert("RGB"))
    with torch.no_grad():
        logits, exact = model(**inputs).logits.float(), plain(**inputs).logits
    assert logits.shape == exact.shape
    assert torch.nn.functional.cosine_similarity(logits.flatten(), exact.flatten(), dim=0) > 0.99
    assert not torch.equal(logits, exact)


def test_convolutions_stay() -> None:
    model, _ = load("nano", device="cpu")
    use_int8(model.model)
    assert not any(isinstance(module, Int8Linear) for module in model.model.vision_tower.modules())
    assert isinstance(model.model.language_model.layers[0].mlp.up_proj, Int8Linear)


def test_int8_is_for_inference_on_a_cpu(folder: Path, tmp_path: Path) -> None:
    model, _ = load(folder, device="cpu")
    use_int8(model.model)
    with pytest.raises(ConfigError, match="cannot be trained; load it without fast"):
        model.train()
    assert not any(isinstance(module, Int8Linear) and module.training for module in model.modules())
    with pytest.raises(ConfigError, match="cannot be moved to cpu in bfloat16"):
        model.bfloat16()
    with pytest.raises(ConfigError, match="cannot be moved to meta in float32"):
        model.to("meta")
    with pytest.raises(ConfigError, match="cannot be saved"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_adapters_do_not_fit_int8(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model, _ = load(folder, device="cpu")
    use_int8(model.model)
    with pytest.raises(ValueError, match="Int8Linear"):
        get_peft_model(model, LoraConfig(target_modules=["q_proj"]))


def test_what_fast_refuses(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fast chooses the numbers itself, but dtype is 'float32'"):
        load(folder, device="cpu", dtype="float32", fast=True)
    with pytest.raises(ConfigError, match="fast chooses the numbers itself, but quantization is 'int8'"):
        load(folder, device="cpu", quantization="int8", fast=True)
    monkeypatch.setattr(loading, "_device", lambda _: torch.device("cuda:0"))
    with pytest.raises(ConfigError, match="fast is for CPUs, but the device is cuda:0"):
        load(folder, fast=True)


def test_fast_without_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slime_vlm.checkpoints import int8_linear

    monkeypatch.setattr(loading, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr(int8_linear, "ENGINE", "fpga")
    with pytest.raises(ConfigError, match="fast needs a CPU with bfloat16 instructions or torch's 'fpga' kernels"):
        load(folder, device="cpu", fast=True)
