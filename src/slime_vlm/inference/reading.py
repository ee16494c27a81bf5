"""How sure the encoder was of the characters that an answer repeats from the page, for models with characters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slime_vlm.model.copy_output import following_places


def reading_certainty(ids: Tensor, certainties: Tensor, answer: Sequence[int], space: int) -> float:
    """Return the certainty of an answer's least certain character.

    Where the page says the answer more than once, the most certain place counts. A space of an answer may stand between
    two lines, so the words after it may be anywhere.

    Args:
        ids: int64 [R, C, K] ids of the characters of a page's cells, 0 for nothing.
        certainties: [R, C, K] certainty of each, in 0..1.
        answer: Ids of the answer's characters.
        space: Id of the space.

    Returns:
        1 for what the page does not say: a refusal has not been read.
    """
    following, shown, sure = following_places(ids), ids.flatten(), certainties.flatten()
    least = 1.0
    at = torch.empty(0, dtype=torch.long, device=ids.device)
    values = sure[at]
    for index, character in enumerate(answer):
        before, at = at, following[at]
        goes_on = at >= 0
        goes_on[goes_on.clone()] = shown[at[goes_on]] == character
        if bool(goes_on.any()):
            at = at[goes_on]
            values = torch.minimum(values[goes_on], sure[at])
            continue
        if len(before):
            least = min(least, float(values.max()))
        if character == space and len(before):
            # Between two lines: what follows begins anew.
            at, values = following[:0], sure[:0]
            continue
        if index and answer[index - 1] != space:
            return 1.0
        at = (shown == character).nonzero()[:, 0]
        if not len(at):
            return 1.0
        values = sure[at]
    return min(least, float(values.max())) if len(at) else least
