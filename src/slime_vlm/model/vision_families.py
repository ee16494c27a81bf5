"""Families of vision encoders: what SliME has to know about each beyond transformers' config (paper section 3.1).

The config (size of a view), `vision_encoder` and the loading of pretrained parts look an encoder up here by its
`model_type`. A type without an entry is tried as `OTHER`. The table imports no torch.

To add a family:
1. Add an entry to `VISION_FAMILIES` below. The defaults fit an encoder that takes pixels and puts no token before those
   of the patches. An encoder that transformers does not have is registered with its Auto classes, as in
   `recogniser_encoder`.
2. Add a small config and its colour statistics to `tests/checkpoints/pretrained_parts/families.py`. The tests of
   encoders, pairs and `slime new` then cover it, and one test fails as long as an entry is missing there.
3. Add a row to the table in `docs/models.md`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionFamily:
    """One family of vision encoders.

    Attributes:
        prefix_parameters: Parameters of the encoder's `embeddings` that each put one token before the patches.
        register_field: Config field with the number of register tokens, which stand before the patches as well.
        pooling_head_field: Config field that switches on a pooling head behind the last layer. SliME does not use it.
        num_patches_field: Config field with the size of the position table, for encoders without `image_size`.
        takes_patches: Whether the encoder takes flattened patches and their grids instead of pixels.
    """

    prefix_parameters: tuple[str, ...] = ()
    register_field: str | None = None
    pooling_head_field: str | None = None
    num_patches_field: str | None = None
    takes_patches: bool = False


VISION_FAMILIES: dict[str, VisionFamily] = {
    "clip_vision_model": VisionFamily(prefix_parameters=("class_embedding",)),
    "siglip_vision_model": VisionFamily(pooling_head_field="vision_use_head"),
    # SigLIP 2 for native sizes ("naflex").
    "siglip2_vision_model": VisionFamily(
        pooling_head_field="vision_use_head", num_patches_field="num_patches", takes_patches=True
    ),
    "dinov2": VisionFamily(prefix_parameters=("cls_token",)),
    "dinov2_with_registers": VisionFamily(prefix_parameters=("cls_token",), register_field="num_register_tokens"),
    "resnet": VisionFamily(),
    # Of this package, see `recogniser_encoder`.
    "slime_recogniser": VisionFamily(),
}
"""The families that the tests cover, by `model_type`."""

OTHER = VisionFamily(
    prefix_parameters=("class_embedding", "cls_token", "distillation_token"),
    register_field="num_register_tokens",
    pooling_head_field="vision_use_head",
    num_patches_field="num_patches",
)
"""Any other encoder: every name that a known family uses is tried."""


def family_of(model_type: str) -> VisionFamily:
    """Look up the family of a `model_type`; `OTHER` if there is no entry."""
    return VISION_FAMILIES.get(model_type, OTHER)
