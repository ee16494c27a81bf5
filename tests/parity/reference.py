"""Reads a folder of parity data and builds the native model that each case describes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from slime_vlm.checkpoints.published.config import read_published, slime_config
from slime_vlm.checkpoints.published.weight_names import is_unused, native_tensors
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor


@dataclass(frozen=True)
class ParityRoot:
    """A folder in the format of the parity data."""

    path: Path

    def json(self, name: str) -> Any:
        """Content of a JSON file."""
        return json.loads((self.path / name).read_text())

    @cached_property
    def _cases(self) -> dict[str, dict[str, Any]]:
        return self.json("cases.json")

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Every case by name."""
        return self._cases

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Recorded tensors of a case."""
        return load_file(self.path / self.cases[name]["file"])

    def image(self, name: str) -> Image.Image:
        """An image of the data."""
        return Image.open(self.path / "images" / f"{name}.png")

    def published_weights(self, case: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """Weights of a case in the published names, in float32."""
        folder = self.path / "checkpoints"
        weights = load_file(folder / case["checkpoint"] / "model.safetensors")
        if case.get("weight_overlay"):
            weights |= load_file(folder / "overlays" / case["weight_overlay"])
        for name, tensor in weights.items():
            for old, new in (case.get("weight_rename") or {}).items():
                if name.startswith(old):
                    yield new + name[len(old) :], tensor.float()
            yield name, tensor.float()

    def build(self, name: str, **fields: Any) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
        """Native model and processor of a case; `fields` change its published config."""
        case = self.cases[name]
        folder = self.path / "checkpoints" / case["checkpoint"]
        published = self.json(f"checkpoints/{case['checkpoint']}/config.json") | case["config_overrides"] | fields
        base, processor = read_checkpoint(folder)
        config = slime_config(published, base.vision_config)
        config.image_token_id = processor.image_token_id
        # What was recorded is the published behaviour, also where the default here is another one.
        config.selector_text = "all"
        config.max_sequence_length = published["tokenizer_model_max_length"]
        if case.get("single_view_4d_input"):
            config.views = "global"
        processor.follow(config)
        model = SlimeForConditionalGeneration(config).eval()
        wanted = set(model.state_dict())
        native: dict[str, Tensor] = {}
        for published_name, tensor in self.published_weights(case):
            parts = dict(native_tensors(published_name, tensor))
            assert parts or is_unused(published_name), f"unknown weight {published_name}"
            native |= {key: value for key, value in parts.items() if key in wanted}
        model.load_state_dict(native, strict=True)
        return model, processor


@cache
def read_checkpoint(folder: Path) -> tuple[SlimeConfig, SlimeProcessor]:
    """Config and processor of a checkpoint; read once, a sentencepiece model takes seconds to convert."""
    return read_published(folder)


@cache
def load_tokenizer(folder: Path) -> Any:
    """Tokenizer of a checkpoint, as it is published."""
    return AutoTokenizer.from_pretrained(folder)
