"""SliME as a model of VLMEvalKit; imported by the launcher alone."""

from __future__ import annotations

from typing import Any

from vlmeval.vlm.base import BaseModel

from slime_vlm.checkpoints.loading import load
from slime_vlm.evaluation.images import open_benchmark_image
from slime_vlm.harnesses.messages import read_message
from slime_vlm.inference.batching import BatchAnswerer


class SlimeVlm(BaseModel):
    """SliME behind VLMEvalKit's interface, one question at a time as VLMEvalKit asks, images at full sharpness.

    Args:
        pretrained: `nano`, a folder or a hub id.
        device: where the model belongs; see `slime_vlm.load`.
        dtype: type of its weights.
        max_new_tokens: longest answer.
        **overrides: fields of `SlimeConfig` to change.
    """

    # Of a video VLMEvalKit then gives frames.
    VIDEO_LLM = False
    allowed_types = ("text", "image")

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str | None = None,
        max_new_tokens: int = 1024,
        **overrides: Any,
    ) -> None:
        super().__init__()
        self._answerer = BatchAnswerer(*load(pretrained, device, dtype, **overrides), batch_size=1)
        self._max_new_tokens = max_new_tokens

    def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        """Answers a message; `dataset` is the name of the benchmark and changes nothing."""
        text, files = read_message(message)
        return self._answerer.answer([text], [[open_benchmark_image(file) for file in files]], self._max_new_tokens)[
            0
        ].text
