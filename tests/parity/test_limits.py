"""What the published code cannot do: each of the recorded limits is one that is lifted or named here."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from slime_vlm.errors import ConfigError
from tests.parity.reference import ParityRoot

# Limit -> a case and what its published config is changed to.
LIMITS: dict[str, tuple[str, dict[str, Any]]] = {
    "projector_qformer_with_spatial_merge": (
        "variant_vicuna_projector_qformer_flat_small",
        {"mm_patch_merge_type": "spatial"},
    ),
    "projector_qformer_when_llm_width_differs": ("llama3_small", {"mm_projector_type": "qformer"}),
    "two_images_in_one_prompt": ("llama3_small", {}),
    "two_images_in_one_prompt_global_only": ("llama3_small", {"use_global_only": True}),
    "two_images_in_one_prompt_no_sampler": ("llama3_small", {"mm_resampler_type": "identity"}),
}


def test_no_limit_is_overlooked(root: ParityRoot) -> None:
    assert set(root.json("known_limits.json")) == set(LIMITS)


@pytest.mark.parametrize("limit", list(LIMITS))
def test_limit(root: ParityRoot, limit: str, count: Counter[str]) -> None:
    name, fields = LIMITS[limit]
    if name not in root.cases:
        pytest.skip(f"{name} is not part of these parity data")
    case = root.cases[name]
    count["limits of the published code"] += 1
    if limit == "projector_qformer_when_llm_width_differs":
        with pytest.raises(ConfigError, match="widths 256 and 64, expected equal widths"):
            root.build(name, **fields)
        return
    model, processor = root.build(name, **fields)
    # Not cut at 2048 either, as the published code does in silence.
    model.config.max_sequence_length = None
    images = 2 if limit.startswith("two_images") else 1
    prompt = case["prompt"].replace("<image>", " ".join(["<image>"] * images))
    image = root.image(case["images"][0])
    lengths, logits = [], []
    for last in (image, image.rotate(180)):
        inputs = processor(text=prompt, images=[image, last][-images:])
        with torch.no_grad():
            outputs = model(**inputs)
        dropped = sum(int((~kept).sum()) for kept in outputs.kept_local_tokens or ())
        lengths.append(outputs.logits.shape[1] - inputs["input_ids"].shape[1] + dropped)
        logits.append(outputs.logits[0, -1])
    assert lengths == [0, 0]
    # The last image is seen.
    assert (logits[0] - logits[1]).abs().max() > 1e-3
