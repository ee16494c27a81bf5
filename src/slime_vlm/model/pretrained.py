"""What both model classes share: loading, saving and the first values of the weights."""

from __future__ import annotations

from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.global_adapters import GlobalAdapter
from slime_vlm.model.query_attention import QueryAttention, initial_position_table
from slime_vlm.model.visual_vocabulary import VisualVocabulary


class SlimePreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation shared by both model classes."""

    config: SlimeConfig
    config_class = SlimeConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["QueryAttention", "AttentionScorer"]  # noqa: RUF012  (the base class's attribute)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, QueryAttention):
            init.normal_(module.query, std=0.02)
            init.copy_(module.position_table, initial_position_table(*module.query.shape))
        elif isinstance(module, GlobalAdapter):
            init.zeros_(module.gate_weight)
        elif isinstance(module, VisualVocabulary):
            init.normal_(module.table, std=0.02)
