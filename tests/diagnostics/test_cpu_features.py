from __future__ import annotations

import pytest
import torch

from slime_vlm.diagnostics import cpu_features as precision


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        (["fma", "avx2"], False),
        (["avx512f", "avx512_bf16"], False),
        (["avx512_bf16", "amx_bf16"], True),
        (["asimd", "bf16"], True),
    ],
)
def test_bf16_is_told_by_the_processor(monkeypatch: pytest.MonkeyPatch, flags: list[str], fast: bool) -> None:
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.cpu_has_bf16() is fast
    assert precision.has_bf16() is fast
