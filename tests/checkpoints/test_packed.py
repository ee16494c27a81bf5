"""`load(packed=True)`: the same numbers up to rounding, where the processor gains from it, for inference alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import LlamaConfig

import slime_vlm
from slime_vlm.checkpoints import loading
from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.packed_linear import PackedLinear
from slime_vlm.diagnostics import cpu_features
from slime_vlm.errors import ConfigError
from tests.tiny_checkpoints import save_native

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("native")
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    save_native(root, text_config=LlamaConfig(**text, num_key_value_heads=1))
    return root


@pytest.fixture(autouse=True)
def _gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "can_pack", lambda: True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 577, 1000])
def test_a_layer_computes_the_same(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(40, 24, bias=bias)
    layer, x = PackedLinear(linear), torch.randn(2, rows, 40)
    with torch.no_grad():
        assert torch.allclose(layer(x), linear(x), atol=1e-5)
        assert torch.allclose(layer(x[:, :1]), layer(x)[:, :1], atol=1e-5)


def test_a_product_by_hand() -> None:
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.3]]))
        linear.bias.fill_(0.5)
    assert PackedLinear(linear)(torch.tensor([[2.0, -0.9]])).item() == pytest.approx(2.23)


def test_logits_and_answers_are_the_same(folder: Path) -> None:
    packed, processor = load(folder, device="cpu", packed=True)
    plain, _ = load(folder, device="cpu")
    changed = [name for name, module in packed.named_modules() if isinstance(module, PackedLinear)]
    assert {name.split(".")[1] for name in changed} >= {"vision_tower", "language_model", "global_adapter"}
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    inputs = processor(text="<image>\nWhat?", images=image)
    with torch.no_grad():
        assert torch.allclose(packed(**inputs).logits, plain(**inputs).logits, atol=1e-4)
    answers = [slime_vlm.ask(model, processor, image, "What?", max_new_tokens=8)[0].text for model in (packed, plain)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("options", [{"fast": True}, {"dtype": "bfloat16"}])
def test_other_numbers_stay(folder: Path, options: dict[str, str]) -> None:
    model, _ = load(folder, **{"device": "cpu", **options}, packed=True)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


def test_it_is_for_inference_alone(folder: Path, tmp_path: Path) -> None:
    model, _ = load(folder, device="cpu", packed=True)
    for action in (model.train, model.bfloat16, lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(ConfigError, match=r"has packed layers for CPUs and cannot be .*; load it without packed"):
            action()
    model.to("cpu")


@pytest.mark.parametrize(
    ("lines", "gains"),
    [
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f\n", True),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n", False),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: fp asimd bf16\n", False),
    ],
)
def test_which_processors_gain(monkeypatch: pytest.MonkeyPatch, lines: str, gains: bool) -> None:
    monkeypatch.setattr(cpu_features, "open", lambda *_, **__: io.StringIO(lines), raising=False)
    assert cpu_features.cpu_gains_from_packing() is gains
