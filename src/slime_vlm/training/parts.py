"""Parts of a model by their names in recipes, and the parameters of each part."""

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
    "character_names": ("model.character_names.",),
    "open_vocabulary": ("model.open_vocabulary.",),
    "copy_output": ("model.copy_output.",),
    "answer_finder": ("model.answer_finder.",),
    "language_model": ("model.language_model.", "lm_head."),
}


def parameters_of(model: SlimeForConditionalGeneration, part: str) -> list[str]:
    """Return the names of the parameters of a part; empty if the model does not have the part."""
    return [name for name, _ in model.named_parameters() if name.startswith(PART_PREFIXES[part])]
