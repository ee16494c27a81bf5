"""An answer about one image, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from slime_vlm.inference.heat_map import LocalSelection, draw_overlay, drawing_copy
from slime_vlm.media import OpenedInput
from slime_vlm.model.tiling import TileGrid


@dataclass(frozen=True)
class Answer:
    """An answer about one image, and what it was made from. Per-token arrays are in image order.

    A turn of a conversation is a `conversation.Reply`: it may have several images, each selected for the question it
    entered with. A batch gives `batching.BatchAnswer`s, which only count tokens.

    Attributes:
        question: The question.
        text: The answer.
        selection: The local tokens that the language model processed, and the selector's scores.
        num_global: Number of global tokens that the language model processed.
        probabilities: float [L], the scores as probabilities. None without a selector.
        gates: float [N, 2], the weights of the two global adapters. None if the model has only one.
        seconds: Time by step: select, prefill and decode. The first question of an image adds preprocess and encode.
        confidence: Mean probability of the answer's tokens, in 0..1. Where the checkpoint has `answer_calibration`, the
            share of such answers that are right.
        reading: Certainty of the least certain character that the answer repeats from the image, in 0..1. None for
            models that name no characters.
    """

    question: str
    text: str
    selection: LocalSelection
    num_global: int
    probabilities: np.ndarray | None
    gates: np.ndarray | None
    seconds: dict[str, float]
    confidence: float
    reading: float | None = None

    @property
    def grid(self) -> TileGrid:
        """Tiles of the image."""
        return self.selection.grid

    @property
    def kept(self) -> np.ndarray:
        """Local tokens that the language model processed, bool [L]."""
        return self.selection.kept

    @property
    def scores(self) -> np.ndarray | None:
        """The selector's scores, float [L]; None without a selector."""
        return self.selection.scores

    @property
    def num_local(self) -> int:
        """Number of local tokens of the image before selection."""
        return self.kept.size

    @property
    def num_kept(self) -> int:
        """Number of local tokens that the language model processed."""
        return int(self.kept.sum())

    @property
    def kept_indices(self) -> np.ndarray:
        """Indices of the kept local tokens, int [k]."""
        return np.flatnonzero(self.kept)

    def draw(self, image: OpenedInput) -> Image.Image:
        """Draw tiles and kept tokens over the image, or the frames of the video, see `heat_map.draw_overlay`."""
        canvas = image if isinstance(image, Image.Image) else drawing_copy(image, self.grid)
        return draw_overlay(canvas, self.selection, self.question, self.text, num_global=self.num_global)
