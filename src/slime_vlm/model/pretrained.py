"""Base class of both model classes: loading, saving and initial weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from slime_vlm.model.answer_finder import AnswerFinder
from slime_vlm.model.cell_words import character_classes
from slime_vlm.model.character_naming import CharacterNames
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.copy_output import CopyOutput
from slime_vlm.model.global_adapters import GlobalAdapter
from slime_vlm.model.hub_card import write_card
from slime_vlm.model.hub_mixin import HubMixin
from slime_vlm.model.line_queries import LineContext, LineQueries
from slime_vlm.model.linker import Linker, PageAttention
from slime_vlm.model.open_vocabulary import OpenVocabulary
from slime_vlm.model.query_attention import QueryAttention, initial_position_table
from slime_vlm.model.visual_vocabulary import VisualVocabulary

UNQUANTISED = (
    "vision_tower",
    "projector",
    "global_adapter",
    "local_compressor",
    "selector",
    "page_positions",
    "character_names",
    "open_vocabulary",
    "copy_output",
    "answer_finder",
)
"""Parts of `SlimeModel` that stay in the model's own type when it is quantised: all but the language model."""


class SlimePreTrainedModel(HubMixin, PreTrainedModel):
    """Loading, saving and initialisation shared by both model classes."""

    config: SlimeConfig
    config_class = SlimeConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = [  # noqa: RUF012  (the base class's attribute)
        "QueryAttention",
        "AttentionScorer",
        "GlobalAdapter",
        "VisualVocabulary",
        "LineQueries",
        "CharacterNames",
        "OpenVocabulary",
        "CopyOutput",
        "AnswerFinder",
    ]
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as every transformers model does; quantisation leaves all but the language model's layers alone.

        A plain `BitsAndBytesConfig` would quantise projector and selector as well, and answers would be wrong without
        an error: the selection compares embeddings.
        """
        config = kwargs.get("quantization_config")
        for name in ("llm_int8_skip_modules", "modules_to_not_convert"):
            if config is not None and getattr(config, name, ()) is None:
                setattr(config, name, [*UNQUANTISED, *(f"model.{part}" for part in UNQUANTISED), "lm_head"])
        return super().from_pretrained(*args, **kwargs)

    @property
    def device(self) -> torch.device:
        """Device of the inputs: that of the weights, or where offloaded weights compute."""
        device: torch.device = super().device
        if device.type != "meta":
            return device
        hooks = (getattr(module, "_hf_hook", None) for module in self.modules())
        devices = (getattr(hook, "execution_device", None) for hook in hooks)
        return torch.device(next((found for found in devices if found is not None), device))

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, **kwargs: Any) -> None:
        """Save as every transformers model does, and write a model card if the folder has none."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            write_card(save_directory, self.config, tags=self.model_tags or ())

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, QueryAttention):
            init.normal_(module.query, std=0.02)
            init.copy_(module.position_table, initial_position_table(*module.query.shape))
        elif isinstance(module, GlobalAdapter):
            init.zeros_(module.gate_weight)
        elif isinstance(module, VisualVocabulary):
            init.normal_(module.table, std=0.02)
        elif isinstance(module, LineQueries):
            init.zeros_(module.mean)
            init.ones_(module.std)
            init.copy_(module.row_bias, module.first_rows())
        elif isinstance(module, LineContext):
            init.zeros_(module.contract.weight)
            init.zeros_(module.contract.bias)
        elif isinstance(module, CharacterNames):
            init.zeros_(module.bias)
        elif isinstance(module, OpenVocabulary):
            # Not stored with the weights.
            init.copy_(module.classes, character_classes(module.characters))
            init.zeros_(module.question_type)
        elif isinstance(module, CopyOutput):
            init.copy_(module.gate.bias, module.first_gates())
            init.copy_(module.likeness, module.first_likeness())
        elif isinstance(module, AnswerFinder):
            module.start()
        elif isinstance(module, Linker):
            init.constant_(module.gates.bias, 0.5)
            init.zeros_(module.role.weight)
        elif isinstance(module, PageAttention):
            rows, columns = module.first_biases()
            init.copy_(module.row_bias, rows)
            init.copy_(module.column_bias, columns)
            init.zeros_(module.beside_bias)
            init.zeros_(module.stacked_bias)
