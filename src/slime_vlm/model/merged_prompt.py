"""A prompt as a caller needs it who runs the language model in a loop of its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from slime_vlm.model.copying_run import CopyingInputs
from slime_vlm.model.token_merging import MergedRows


@dataclass
class MergedPrompt:
    """One prompt [1, C] whose local tokens are selected and merged in: S tokens are left.

    Attributes:
        rows: The row.
        embeddings: [1, S, D].
        kept: bool [L] of every image, the local tokens that the row holds.
        copying: What `run_copying` takes for the whole row. None without a copy output.
        question: [1, W] vector of the last question, for `SlimeWords.embed_answer`. None without characters.
    """

    rows: MergedRows
    embeddings: Tensor
    kept: tuple[Tensor, ...]
    copying: CopyingInputs | None = None
    question: Tensor | None = None
