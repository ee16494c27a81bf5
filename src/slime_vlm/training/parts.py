"""Parts of a model by the names that recipes give them, and the parameters that each holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

PART_PREFIXES: dict[str, tuple[str, ...]] = {
    "vision_tower": ("model.vision_tower.",),
    "projector": ("model.projector.",),
    "projector_tables": ("model.projector.table",),
    "gate": ("model.global_adapter.gate_weight",),
    "global_adapter": ("model.global_adapter.query_attention.",),
    "local_compressor": ("model.local_compressor.",),
    "selector": ("model.selector.",),
    "page_positions": ("model.page_positions.",),
    "language_model": ("model.language_model.", "lm_head."),
}


def parameters_of(model: SlimeForConditionalGeneration, part: str) -> list[str]:
    """Names of the parameters of one part of the model; empty where the model lacks the part."""
    return [name for name, _ in model.named_parameters() if name.startswith(PART_PREFIXES[part])]
