"""int8 and 4-bit loading: only the language model's linear layers change, and the answers stay near."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlamaConfig

from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.quantization import kept_modules
from slime_vlm.errors import ConfigError
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from tests.saved_folder import assert_auto_classes_find_it
from tests.tiny_checkpoints import save_native
from tests.tiny_published import write_published

LINEAR = re.compile(r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    save_native(root / "native", text_config=LlamaConfig(**text, num_key_value_heads=1))
    return {"published": write_published(root / "published"), "native": root / "native"}


def test_kept_modules_by_hand(model: SlimeForConditionalGeneration):
    parts = ["vision_tower", "projector", "global_adapter", "local_compressor", "selector"]
    assert kept_modules(model.model) == [*(f"model.{part}" for part in parts), "lm_head"]


@pytest.mark.parametrize(
    ("layout", "kind"), [("native", "int8"), ("published", "int8"), ("native", "4bit"), ("native", "torchao-int8")]
)
def test_only_the_language_models_layers_change(folders: dict[str, Path], layout: str, kind: str, caplog):
    if kind == "torchao-int8":
        pytest.importorskip("torchao", reason="it warns on a CPU wherever it is installed, so dev leaves it out")
    model, processor = load(folders[layout], device="cpu", quantization=kind)
    plain, _ = load(folders[layout], device="cpu", dtype="bfloat16")
    changed = {
        name
        for name, module in model.named_modules()
        # torchao changes the weights and leaves the module's class alone.
        if isinstance(module, torch.nn.Linear)
        and (type(module) is not torch.nn.Linear or type(module.weight.data).__name__ == "Int8Tensor")
    }
    expected = {name for name, _ in plain.named_modules() if LINEAR.fullmatch(name)}
    assert len(expected) == 14
    assert changed == expected
    untouched = {name: value for name, value in plain.state_dict().items() if not LINEAR.match(name)}
    for name, value in model.state_dict().items():
        if not LINEAR.match(name):
            assert value.dtype == torch.bfloat16, name
            assert torch.equal(value, untouched[name]), name
    inputs = processor(text="<image>\nWhat?", images=Image.effect_noise((90, 60), 80).convert("RGB"))
    with torch.no_grad():
        logits, exact = model(**inputs).logits.float(), plain(**inputs).logits.float()
    assert "cast" not in caplog.text
    # Same image, question and selection; the weights are of 8 or 4 bits.
    assert logits.shape == exact.shape
    similarity = torch.nn.functional.cosine_similarity(logits.flatten(), exact.flatten(), dim=0)
    assert similarity > (0.9 if kind == "4bit" else 0.99)
    assert not torch.equal(logits, exact)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_plain_transformers_config_changes_the_same_layers(folders: dict[str, Path], bits: int):
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    model = AutoModelForImageTextToText.from_pretrained(folders["native"], quantization_config=config)
    ours, _ = load(folders["native"], device="cpu", quantization="int8" if bits == 8 else "4bit")
    kinds = [{name: type(module) for name, module in one.named_modules()} for one in (model, ours)]
    assert kinds[0] == kinds[1]


def test_a_quantised_model_is_saved_with_its_stub(folders: dict[str, Path], tmp_path: Path):
    from transformers import AutoModelForImageTextToText

    model, processor = load(folders["native"], device="cpu", quantization="4bit")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert_auto_classes_find_it(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, device_map="cpu")
    inputs = processor(text="<image>\nWhat?", images=Image.effect_noise((90, 60), 80).convert("RGB"))
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_the_type_of_the_rest_can_be_chosen(folders: dict[str, Path]):
    model, _ = load(folders["native"], device="cpu", dtype="float32", quantization="4bit")
    assert model.lm_head.weight.dtype == torch.float32


def test_widths_that_cannot_be_packed(folders: dict[str, Path]):
    with pytest.raises(ConfigError, match=r"multiples of 64 and 32, .* layers\.0\.self_attn\.q_proj goes from 24"):
        load(folders["published"], quantization="4bit")


def test_unknown_and_missing(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="quantization '3bit' is unknown, expected one of int8, 4bit, torchao-int8"):
        load(folders["native"], quantization="3bit")
    for package, kind, extra in (("bitsandbytes", "int8", "quantize"), ("torchao", "torchao-int8", "torchao")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            ConfigError, match=re.escape(f'{package}, which is not installed: pip install "slime-vlm[{extra}]')
        ):
            load(folders["native"], quantization=kind)
