"""SliME as a model of VLMEvalKit. Only the launcher `vlmevalkit.py` imports this module."""

from __future__ import annotations

from typing import Any

from vlmeval.vlm.base import BaseModel

from slime_vlm.checkpoints.loading import load
from slime_vlm.evaluation.images import open_benchmark_image
from slime_vlm.harnesses.messages import read_message
from slime_vlm.inference.batching import BatchAnswerer


class SlimeVlm(BaseModel):
    """SliME behind VLMEvalKit's interface: one question at a time, images in full resolution.

    Args:
        pretrained: `nano`, a folder or a hub id.
        device: Device of the model, see `slime_vlm.load`.
        dtype: Number type of its weights.
        max_new_tokens: Maximum length of an answer, in tokens.
        **overrides: Fields of `SlimeConfig` to change.
    """

    # VLMEvalKit then passes the frames of a video.
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
        """Answer a message. `dataset` is the name of the benchmark and is ignored."""
        text, files = read_message(message)
        return self._answerer.answer([text], [[open_benchmark_image(file) for file in files]], self._max_new_tokens)[
            0
        ].text
