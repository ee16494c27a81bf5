"""Which parts a step uses, and in which order: the same for every batch, since weights may be spread over processes.

Each use of a part then is a meeting of all processes (FSDP2, ZeRO-3), and one that meets more often waits for ever.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from tests.conftest import tiny_model
from tests.model.training_batches import ROWS, TEXT_ROWS, mixed_batch


def uses(model: Any, rows: Any) -> list[str]:
    """Parts with weights of their own, as a forward pass calls them one after another."""
    called: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            called.append(name)

        return hook

    parts = [(name, part) for name, part in model.named_modules() if list(part.parameters(recurse=False))]
    hooks = [part.register_forward_pre_hook(note(name)) for name, part in parts]
    model(**mixed_batch(model, rows), loss_only=True)
    for hook in hooks:
        hook.remove()
    return called


@pytest.mark.parametrize("selector", ["cosine", "attention"])
def test_every_batch_uses_the_same_parts_in_the_same_order(selector: str) -> None:
    model = tiny_model(selector=selector, selector_noise=0.0, gate_noise=False, views_per_chunk=64).train()
    expected = uses(model, [ROWS[0]])
    assert {"lm_head", "model.language_model.embed_tokens"} < set(expected)
    for rows in ([ROWS[3]], ROWS, TEXT_ROWS, [TEXT_ROWS[0], ROWS[3]]):
        assert uses(model, rows) == expected
